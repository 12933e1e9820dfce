"""Runs a command of robustseg in this process, for tests."""

from typer.testing import CliRunner

from robustseg.cli import app


def run(*arguments: str, code: int = 0) -> str:
    """What the command prints, in one line; fails where the exit code is another or a traceback is shown."""
    result = CliRunner().invoke(app, list(arguments))
    text = " ".join((result.stdout + result.stderr).split())
    assert result.exit_code == code, text
    assert "Traceback" not in text
    return text
