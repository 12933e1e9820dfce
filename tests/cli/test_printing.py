"""What stands on the terminal: texts as they are, tables that are whole, no text that is obeyed."""

import io
from pathlib import Path

import pytest

import runs
from commands import run
from robustseg.cli import shared
from robustseg.cli.shared import plain, table_of
from robustseg.core.errors import RobustsegError

TEXTS = (
    "[red]a[/]",
    "a[/]",
    "[link=https://x.org]a[/link]",
    "\\[red]a",
    ":warning: a",
    "[bold",
    "日本",
    "a [1, 2]",
    "[@click=x]a",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_printed_as_it_is(text: str) -> None:
    console, table = shared._Plain(), table_of("head")
    console.file = io.StringIO()
    table.add_row(text)
    console.print(text, soft_wrap=True)
    console.print(table)
    first, _, cell = console.file.getvalue().splitlines()
    assert (first, cell.strip()) == (text, text)


def test_a_text_does_not_move_the_cursor_or_break_the_encoding() -> None:
    console = shared._Plain()
    console.file = io.StringIO()
    console.print("a\x1b[2Jb\x00c\x9b\rd\udcffe\n\tf", soft_wrap=True)
    assert console.file.getvalue() == "a\\x1b[2Jb\\x00c\\x9b\\rd\\udcffe\n        f\n"
    assert plain("plain text ± 日本") == "plain text ± 日本"


def test_tables_are_whole_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    spec = "pgd(budget='linf:8/255', steps=2, step='1/255', objective='" + "x" * 300 + "')"
    records = [runs.record("zoo:a", "clean", 0.1, n=2), runs.record("zoo:a", spec, 0.4, n=2)]
    folder = runs.write(tmp_path / "run", records)
    assert spec in run("compare", str(folder), str(folder))
    shared.print_summary(folder, shared.open_data("streets(scenes=1, frames=1, size='16x32')", None, None))


def test_tables_are_folded_and_not_cut_on_a_narrow_terminal() -> None:
    console = shared._Plain()
    console.file, console._force_terminal, console.width = io.StringIO(), True, 30
    table = table_of("network", "perturbation")
    table.add_row("zoo:erfnet-streets", "pgd(budget='linf:8/255',steps=2)")
    console.print(table)
    text = console.file.getvalue()
    assert "…" not in text
    assert {"8", "/", "2", ")"} <= set(text)
    assert max(map(len, text.splitlines())) <= 30


def test_the_message_of_an_error_is_printed_as_it_is(tmp_path: Path) -> None:
    said = run("report", str(tmp_path / "[red]x[/]"), code=2)
    assert "[red]x[/]" in said
    with pytest.raises(RobustsegError):
        shared.parse_size("[/]")
