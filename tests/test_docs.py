"""README and docs are true: commands parse, examples run, every command is written about, the tree is the tree."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import typer

from robustseg.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
HONESTLY = (ROOT / "docs" / "evaluate-honestly.md").read_text()
WRAPPERS = (ROOT / "docs" / "wrappers.md").read_text()
COMMANDS = typer.main.get_command(app)


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def command_lines() -> list[str]:
    text = "\n".join(blocks("") + blocks("", HONESTLY) + blocks("", WRAPPERS)).replace("\\\n", " ")
    return [line.split("  #")[0] for line in text.splitlines() if re.match(r"(\S*/)?robustseg ", line)]


@pytest.mark.parametrize("line", command_lines())
def test_commands_of_the_docs_parse(line: str) -> None:
    verb, *arguments = shlex.split(line)[1:]
    COMMANDS.commands[verb].make_context(verb, arguments)  # type: ignore[attr-defined]


@pytest.mark.parametrize("example", blocks("python") + blocks("python", WRAPPERS))
def test_examples_of_the_docs_run(example: str) -> None:
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("name", COMMANDS.commands)  # type: ignore[attr-defined]
def test_every_command_has_help_and_stands_in_the_docs(name: str) -> None:
    assert COMMANDS.commands[name].help  # type: ignore[attr-defined]
    text = README + "".join(p.read_text() for p in (ROOT / "docs").rglob("*.md")) + (ROOT / "CHANGELOG.md").read_text()
    assert f"robustseg {name}" in text


def test_the_tree_in_the_readme_is_the_tree() -> None:
    listed = set(re.findall(r"^  ([a-z_]+(?:\.py|/))", README, flags=re.MULTILINE))
    package = ROOT / "src" / "robustseg"
    real = {
        p.name + ("/" if p.is_dir() else "")
        for p in package.iterdir()
        if p.name[0] not in "_." and p.name != "py.typed"
    }
    assert listed == real - {"zoo/"}


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(re.findall(r"make ([a-z]+)", README + (ROOT / "CONTRIBUTING.md").read_text())) <= set(targets)


def test_generated_docs_are_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert runpy.run_path(str(ROOT / "docs" / "generate.py"))["main"]() == 0, "run make docs"
