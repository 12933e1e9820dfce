"""Hints as schemas: what is read is what the hint says, or the error names the place."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, NotRequired, TypedDict

import pytest

from robustseg.core.errors import RobustsegError
from robustseg.core.schema import DEEPEST, Between, Count, read_as


class Told(TypedDict):
    who: str
    often: NotRequired[Count]


@dataclass
class Thing:
    name: str
    told: Told
    sizes: tuple[int, ...] = ()
    values: dict[str, list[float]] = field(default_factory=dict)


def test_plain_data_become_what_the_hints_say() -> None:
    data = {"name": "a", "told": {"who": "b", "more": 1}, "sizes": [1, 2], "values": {"x": [1, None]}, "unknown": 3}
    found = read_as(Thing, data)
    assert (found.name, found.told, found.sizes) == ("a", {"who": "b", "more": 1}, (1, 2))
    assert found.values["x"][0] == 1.0
    assert math.isnan(found.values["x"][1])
    assert read_as(tuple[int, str] | None, [1, "a"]) == (1, "a")
    assert read_as(tuple[int, str] | None, None) is None


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        (int, True, "a whole number"),
        (int, 1.0, "a whole number"),
        (int, 2**63, "a whole number"),
        (float, "1", "a number"),
        (float, True, "a number"),
        (float, 1e101, "a number"),
        (float, 10**400, "a number"),
        (bool, 1, "true or false"),
        (str, None, "text in it, got null"),
        (Count, -1, "0 to "),
        (Annotated[float, Between(0, 1)], None, "0 to 1 in it, got null"),
        (list[str], {}, "a list"),
        (tuple[int, int], [1], "a list of 2"),
        (dict[str, int], {"a": []}, r"a whole number in it\.a"),
        (Told, [], "an object"),
        (Told, {}, r"it\.who, got nothing"),
        (Thing, {"name": "a", "told": {"who": "b", "often": -1}}, r"in it\.told\.often, got -1"),
        (int | None, "x" * 1000, "got 'x{39}…"),
    ],
)
def test_what_a_hint_does_not_allow_is_named_with_its_place(kind: Any, data: Any, text: str) -> None:
    with pytest.raises(RobustsegError, match=text):
        read_as(kind, data, "it")


def test_any_data_are_not_nested_for_ever() -> None:
    deep: Any = []
    for _ in range(DEEPEST - 1):
        deep = [deep]
    assert read_as(Any, deep) == deep
    with pytest.raises(RobustsegError, match="levels"):
        read_as(Any, [deep])
