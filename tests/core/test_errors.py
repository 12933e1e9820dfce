"""Errors are one sentence that any terminal can show, whatever they quote."""

import pytest

from robustseg.core.errors import LONGEST, TREE, RobustsegError, readable


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\u2028b", "a\u202eb", "a\x00b", "\ud800"])
def test_control_characters_are_spelled_out(text: str) -> None:
    told = str(RobustsegError(f"expected a name, got '{text}'; try another"))
    assert told.isprintable()
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("text", ["x" * 5000, "x " * 5000, "\x00" * 5000, "\ud800" * 5000])
def test_long_texts_are_cut_in_the_middle(text: str) -> None:
    assert len(str(RobustsegError(f"expected a name, got '{text}'; try another"))) <= LONGEST
    assert len(readable(text, 80)) <= 80
    assert str(RobustsegError(f"expected a name, got '{text}'; try another")).endswith("'; try another")


def test_a_message_keeps_its_ends() -> None:
    said = str(RobustsegError(f"expected a, got '{'b' * 5000}{' c' * 5000}'; try \x1b[31m\ud800d"))
    assert said.startswith("expected a, got 'bbb")
    assert said.endswith("; try \\x1b[31m\\ud800d")


def test_the_tree_of_a_data_set_keeps_its_lines() -> None:
    tree = "IMAGES/  a.jpg\nLABELS/  a.png"
    assert str(RobustsegError(f"expected 'a\nb', got none; {TREE}{tree}")) == (
        f"expected 'a\\nb', got none; try this tree:\n{tree}"
    )
