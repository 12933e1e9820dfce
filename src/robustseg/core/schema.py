"""Plain data from files against type hints, so that what is read back is what was written. No torch.

A hint is the schema: `str`, `int`, `float`, `bool`, `Any`, lists, tuples, dictionaries with text keys, unions, `Annotated[..., Between(…)]`,
typed dictionaries and dataclasses. A class with `from_json` reads itself. Null stands for NaN where a number is asked for.
"""

import functools
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, NamedTuple, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from robustseg.core.errors import RobustsegError

LARGEST = 1e100
"""Numbers beyond it are no measurements, and squares of smaller ones are finite."""
DEEPEST = 8
"""Lists and objects inside each other where a hint says `Any`."""


class Between(NamedTuple):
    """Bounds of a number, both included; NaN lies outside."""

    low: float
    high: float = LARGEST


Count = Annotated[int, Between(0, 2**53)]
Amount = Annotated[float, Between(0)]


def read_as(kind: Any, data: Any, place: str = "") -> Any:
    """Plain data as a hint says.

    Args:
        kind: a hint. data: as JSON gives it. place: where the data stands, for messages.

    Raises:
        RobustsegError: the data is of another kind or out of bounds; the text says where.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return _shallow(data, place)
    if origin is NotRequired:
        return read_as(inner[0], data, place)
    if origin is Annotated:
        return _bounded(read_as(inner[0], data, place), inner[1], data, place)
    if origin in (Union, types.UnionType):
        return _one_of(inner, data, place)
    if origin in (list, tuple, dict):
        return _collection(origin, inner, data, place)
    if kind in _SCALARS:
        return _scalar(kind, data, place)
    if not isinstance(data, dict):
        raise _wrong("an object", data, place)
    if hasattr(kind, "from_json"):
        return kind.from_json(data)
    if is_typeddict(kind):
        return {**data, **_entries(kind, data, kind.__required_keys__, place)}
    return kind(**fields_of(kind, data, place=place))


def fields_of(kind: Any, data: Mapping[str, Any], *, required: Any = None, place: str = "") -> dict[str, Any]:
    """The fields of a dataclass that an object holds, each as its hint says.

    Args:
        kind: a dataclass. data: other keys are left out.
        required: names that must be there; by default those of fields without a default.
    """
    assert is_dataclass(kind)
    needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
    return _entries(kind, data, needed if required is None else required, place)


def _entries(kind: Any, data: Mapping[str, Any], required: Any, place: str) -> dict[str, Any]:
    hints = _hints(kind)
    for name in required:
        if name not in data:
            raise RobustsegError(f"expected {_at(place, name)}, got nothing")
    return {name: read_as(hint, data[name], _at(place, name)) for name, hint in hints.items() if name in data}


@functools.lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _at(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _scalar(kind: Any, data: Any, place: str) -> Any:
    fits = type(data) is kind
    if kind is float:
        if data is None:
            return math.nan
        fits = type(data) in (int, float) and abs(data) <= LARGEST
        return float(data) if fits else _raise(_SCALARS[kind], data, place)
    elif kind is int:
        fits = fits and abs(data) < 2**63
    return data if fits else _raise(_SCALARS[kind], data, place)


_SCALARS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def _bounded(value: Any, bounds: Between, data: Any, place: str) -> Any:
    if not bounds.low <= value <= bounds.high:
        upper = f" to {bounds.high:g}" if bounds.high < LARGEST else " or more"
        raise _wrong(f"{bounds.low:g}{upper}", data, place)
    return value


def _one_of(kinds: tuple[Any, ...], data: Any, place: str) -> Any:
    if data is None and type(None) in kinds:
        return None
    errors = []
    for kind in kinds:
        try:
            return read_as(kind, data, place)
        except RobustsegError as error:
            errors.append(error)
    raise errors[0]


def _collection(origin: Any, inner: tuple[Any, ...], data: Any, place: str) -> Any:
    if origin is dict:
        if not isinstance(data, dict):
            raise _wrong("an object", data, place)
        return {name: read_as(inner[1], value, _at(place, name[:40])) for name, value in data.items()}
    if not isinstance(data, (list, tuple)):
        raise _wrong("a list", data, place)
    fixed = origin is tuple and inner[-1] is not Ellipsis
    if fixed and len(data) != len(inner):
        raise _wrong(f"a list of {len(inner)}", data, place)
    kinds = inner if fixed else (inner[0],) * len(data)
    return origin(
        read_as(kind, value, f"{place}[{i}]") for i, (kind, value) in enumerate(zip(kinds, data, strict=True))
    )


def _shallow(data: Any, place: str, depth: int = 0) -> Any:
    if isinstance(data, (dict, list)):
        if depth == DEEPEST:
            raise RobustsegError(f"expected at most {DEEPEST} levels in {place}, got more")
        for value in data.values() if isinstance(data, dict) else data:
            _shallow(value, place, depth + 1)
    elif type(data) in (int, float):
        _scalar(float, data, place)
    return data


def _raise(wanted: str, data: Any, place: str) -> Any:
    raise _wrong(wanted, data, place)


def _wrong(wanted: str, data: Any, place: str) -> RobustsegError:
    return RobustsegError(f"expected {wanted} in {place}, got {_told(data)}")


def _told(data: Any) -> str:
    if isinstance(data, (list, dict)):
        return f"{'a list' if isinstance(data, list) else 'an object'} of {len(data)}"
    if data is None:
        return "null"
    text = repr(data) if not isinstance(data, int) or abs(data) < 10**40 else "a huge number"
    return text if len(text) <= 40 else text[:40] + "…"
