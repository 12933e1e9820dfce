"""Which records of a folder are of its present state: what was written last decides, and nothing is said of what is unknown."""

from robustseg.results.current import consistent, current, distinct, stale_sentence
from robustseg.results.record import Record
from robustseg.results.summary import summary
from runs import record

PGD = "pgd(budget='linf:8/255', steps=20)"


def made(
    perturbation: str = "clean", network: str = "n", weights: str = "w", source: str = "", **changes: str
) -> Record:
    fields = {"content": "c", "code": "k", "source_code": "k", "source": source or network, "source_weights": weights}
    return record(network, perturbation, 0.1, n=4, weights=weights, **{**fields, **changes})


def test_what_changed_under_one_name_is_stale() -> None:
    before = [made(), made(PGD)]
    for change in ({"weights": "w2"}, {"code": "k2"}, {"content": "c2"}):
        after = made(**change)
        assert current([*before, after]) == [after], change
    assert current([*before, made(PGD, source_code="k2")])[0] == before[0], "another perturbation's code"
    assert current([*before, made(network="other", weights="w2")])[:2] == before


def test_what_came_back_is_present_once_it_is_written_again() -> None:
    first, second = made(), made(code="k2")
    assert current([first, second]) == [second]
    assert current([first, second, first]) == [first]
    assert distinct([first, second, first]) == [second, first]


def test_a_changed_surrogate_makes_its_attacks_stale() -> None:
    old = made(PGD, source="s", source_weights="s1")
    new = made(PGD, source="s", source_weights="s2")
    assert current([made(), old, new])[1:] == [new]


def test_other_images_and_precisions_stand_beside() -> None:
    records = [made(), made(precision="float64", weights="w64"), made(data="other", content="c2")]
    assert len(current(records)) == 3


def test_records_that_do_not_know_their_code_and_images_count_as_unchanged() -> None:
    old = record("n", "clean", 0.1, n=4, weights="w", source_weights="w")
    assert current([old, made()]) == [old, made()]
    assert current([old, made(weights="w2")]) == [made(weights="w2")]


def test_a_summary_tells_records_apart() -> None:
    rows = summary([made(), made(code="k2")])
    assert [(row["code"], row["current"]) for row in rows] == [("k", False), ("k2", True)]
    assert all({"weights", "content", "started"} <= set(row) for row in rows)
    assert stale_sentence(1) == "1 earlier record of other images, masks, weights or code is kept and not shown"


def test_states_of_one_name_are_parted() -> None:
    first, second = [made(), made(PGD)], [made(code="k2"), made(PGD, code="k2", source_code="k2")]
    other = made(network="other")
    assert consistent([*first, *second, other]) == [[*first, other], second]
    assert consistent(first) == [first]
