"""Class files, text and JSON in several encodings, whole and damaged, against their plain reading."""

import codecs
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.harness import Edits, Refusal, answer, corpus, damaged, edits, examples, kept, tell
from robustseg.core.spaces import label_space

pytestmark = pytest.mark.filterwarnings("ignore")  # hypothesis', of long inputs
BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

names = st.lists(
    st.one_of(
        st.sampled_from(
            ["road", "car", "sky", " road ", "Road", "void", "", "class 0", "\u200b", "a, b", "\x00", "#", "'"]
        ),
        st.text(max_size=8),
    ),
    max_size=6,
)
encodings = st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])


@st.composite
def class_files(draw: st.DrawFn) -> tuple[bytes, str]:
    """Contents and suffix."""
    listed, encoding = draw(names), draw(encodings)
    if draw(st.booleans()):
        text = draw(st.sampled_from(["\n", "\r\n", "\n\n", "\r", "\n \t\n"])).join(listed)
        return (text + draw(st.sampled_from(["", "\n", "\n\n"]))).encode(encoding, "replace"), ".txt"
    values = st.one_of(st.none(), st.integers(-1, 256), st.booleans(), st.lists(st.integers(0, 255), max_size=4))
    colours = st.lists(st.one_of(st.tuples(*[st.integers(0, 255)] * 3), st.lists(values, max_size=4)), max_size=6)
    content = draw(
        st.one_of(
            st.just(listed),
            st.fixed_dictionaries({"names": st.just(listed)}, optional={"palette": colours, "classes": values}),
            st.just({"names": listed, "palette": [[i, 2 * i, 255] for i in range(len(listed))]}),
            st.dictionaries(st.sampled_from(["names", "palette", "x"]), values, max_size=2),
            st.lists(values, max_size=3),
            values,
        )
    )
    return json.dumps(content, ensure_ascii=draw(st.booleans())).encode(encoding, "replace"), ".json"


@given(written=class_files(), done=st.one_of(st.just([]), edits))
@examples(200)
def test_classes(written: tuple[bytes, str], done: Edits, tmp_path: Path, tally: Counter[str]) -> None:
    data = damaged(written[0], done)
    path = tmp_path / f"classes{written[1]}"
    path.write_bytes(data)
    with kept("classes", data, path.suffix):
        tell(tally, check(path))


@corpus("classes")
def test_classes_that_failed_once(path: Path) -> None:
    check(path)


def check(path: Path) -> bool:
    """Whether a class file is accepted; if so the names, and the colours where it has some, are those in it."""
    space = answer(lambda: label_space(str(path)))
    if isinstance(space, Refusal):
        return False
    found = list(space.names), [list(colour) for colour in space.palette]
    readings = [reading for encoding in _encodings(path.read_bytes()) for reading in _plain(path, encoding)]
    assert readings, f"expected a file that is no class list to be refused, got {space.names}"
    listed, palette = next((r for r in readings if r[0] == found[0]), readings[0])
    assert found[0] == listed, f"expected {listed}, got {space.names}"
    assert all(isinstance(name, str) and name for name in listed), f"expected names, got {listed}"
    assert len(set(listed)) == len(listed), f"expected a name twice to be refused, got {listed}"
    assert not palette or found[1] == palette
    assert all(type(level) is int and 0 <= level <= 255 for colour in space.palette for level in colour)
    return True


def _encodings(data: bytes) -> list[str]:
    """What a text may be encoded in: what its mark says, else UTF-8 or, where there are NUL bytes, UTF-16 or UTF-32."""
    marked = [encoding for bom, encoding in BOMS.items() if data.startswith(bom)][:1]
    return marked or ["utf-8", *(["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"] if b"\0" in data else [])]


def _plain(path: Path, encoding: str) -> list[tuple[list[Any], Any]]:
    """Names and palette in one encoding; empty where the file does not hold them."""
    try:
        text = path.read_bytes().decode(encoding)
        if path.suffix == ".txt":
            return [([line.strip() for line in text.splitlines() if line.strip()], None)]
        content = json.loads(text)
        listed, palette = (content["names"], content.get("palette")) if isinstance(content, dict) else (content, None)
        return [([name.strip() for name in listed], palette)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
