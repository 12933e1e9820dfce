"""Which records of a folder are of its present state: networks, code and data change, and records stay. No torch.

What was written last is present: a record is stale where a later one has other weights or code of the same network or
source, or other images or masks under the same names. `evaluate` writes a record again where what it measured has come
back, so that this holds then, too.
"""

from collections.abc import Sequence
from typing import Any

from robustseg.results.record import Record


def current(records: Sequence[Record]) -> list[Record]:
    """The records of one folder that are of its present state, in order, each once.

    Records of schema 1 do not know their code, images and masks; they count as unchanged.
    """
    present: dict[tuple[Any, ...], tuple[str | None, ...]] = {}
    for record in records:
        present |= _states(record)
    return [r for r in distinct(records) if all(_same(state, present[what]) for what, state in _states(r).items())]


def consistent(records: Sequence[Record]) -> list[list[Record]]:
    """Records in as few parts as keep apart what has two states under one name, in order of appearance."""
    parts: list[tuple[dict[tuple[Any, ...], tuple[str | None, ...]], list[Record]]] = []
    for record in records:
        own = _states(record)
        fits = (part for part in parts if all(_same(own[what], part[0].get(what, own[what])) for what in own))
        found = next(fits, None)
        if found is None:
            parts.append(found := ({}, []))
        found[0].update(own)
        found[1].append(record)
    return [part for _, part in parts]


def distinct(records: Sequence[Record]) -> list[Record]:
    """Records without those that were written again, in the order in which they were written last."""
    return list({(record.key, record.started): record for record in reversed(records)}.values())[::-1]


def stale_sentence(number: int) -> str:
    """What is said of records that are kept and not shown."""
    records = f"{number} earlier record{'s' * (number != 1)}"
    return f"{records} of other images, masks, weights or code {'are' if number != 1 else 'is'} kept and not shown"


def _states(record: Record) -> dict[tuple[Any, ...], tuple[str | None, ...]]:
    """What a record says of each thing that may change under one name."""
    known = (lambda digest: digest) if record.verified else (lambda digest: None)
    return {
        ("network", record.network, record.precision): (record.weights or None, known(record.code)),
        ("source", record.source, record.perturbation, record.precision): (
            record.source_weights or None,
            known(record.source_code),
        ),
        ("data", record.data, record.ids): (known(record.content),),
    }


def _same(one: Sequence[str | None], other: Sequence[str | None]) -> bool:
    return all(a == b or None in (a, b) for a, b in zip(one, other, strict=True))
