"""The user's code: as far as a network runs it, as it was loaded, and edits that are noticed."""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustseg import api
from robustseg.core.code import code_digest, keep_sources, note
from robustseg.core.errors import RobustsegError

BUILD = "from torch import nn\nimport blocks\ndef build():\n    blocks.used\n    return nn.Conv2d(3, 11, 1)\n"
NAMES = ("net", "other", "blocks", "driver", "pack", "late")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder, on the path; its modules are forgotten afterwards."""
    keep_sources()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    forget()


def forget() -> None:
    """As a new process begins."""
    for name in list(sys.modules):
        if name.partition(".")[0] in NAMES:
            del sys.modules[name]
    importlib.invalidate_caches()


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def digest_of(*modules: str) -> str:
    """What a new process says."""
    forget()
    for name in modules:
        importlib.import_module(name)
    for name in modules:
        note(name)
    return code_digest(modules)


def test_code_that_a_network_imports_counts(folder: Path) -> None:
    write(folder, net=BUILD, blocks="used = 1\n")
    before = digest_of("net")
    assert before
    write(folder, blocks="used = 2\n")
    assert digest_of("net") != before
    write(folder, blocks="used = 1\n")
    assert digest_of("net") == before


def test_code_that_a_network_does_not_import_does_not_count(folder: Path) -> None:
    write(folder, net=BUILD, blocks="used = 1\n", other="x = 1\n", driver="import net, other\n")
    alone = digest_of("net")
    assert digest_of("driver") != alone
    assert code_digest(["net"]) == alone
    write(folder, other="x = 2\n", driver="import net\n")
    assert digest_of("net") == alone


@pytest.mark.parametrize(
    "line", ["from pack import deep", "from .deep import x", "import pack.deep", "from . import deep"]
)
def test_every_way_to_import_a_package_is_followed(folder: Path, line: str) -> None:
    (folder / "pack").mkdir()
    write(folder / "pack", __init__="", net=line + "\n", deep="x = 1\n")
    before = digest_of("pack.net")
    write(folder / "pack", deep="x = 2\n")
    assert digest_of("pack.net") != before
    write(folder / "pack", deep="x = 1\n", __init__="# other\n")
    assert digest_of("pack.net") != before


@pytest.mark.parametrize(
    "line",
    [
        "def build():\n    import late\n",
        "import importlib\ndef build():\n    return importlib.import_module('late')\n",
        "def build():\n    return open('settings.yaml').read()\n",
        "from pathlib import Path\nplace = Path(__file__).parent / 'settings.yaml'\n",
        "from pathlib import Path\nexec(Path('late.py').read_text())\n",
    ],
)
def test_what_is_read_or_imported_later_counts(folder: Path, line: str) -> None:
    for name in ("late.py", "settings.yaml"):
        (folder / name).write_text("x = 1\n")
    write(folder, net=line)
    before = digest_of("net")
    for name in ("late.py", "settings.yaml"):
        (folder / name).write_text("x = 2\n")
    assert digest_of("net") != before


def test_a_helper_in_another_folder_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "common").mkdir()
    monkeypatch.syspath_prepend(folder / "common")
    write(folder, net="import other\n")
    write(folder / "common", other="x = 1\n")
    before = digest_of("net")
    write(folder / "common", other="x = 2\n")
    assert digest_of("net") != before


def test_installed_packages_do_not_count() -> None:
    assert code_digest(["robustseg.testing", "numpy", "json"]) == ""
    assert code_digest([]) == ""


def test_code_is_what_was_loaded(folder: Path) -> None:
    write(folder, net=BUILD, blocks="used = 1\n")
    before = digest_of("net")
    write(folder, blocks="used = 2\n")
    assert code_digest(["net"]) == before, "the old code runs on"
    with pytest.raises(RobustsegError, match=r"blocks.py' as this run knows it, got a file that was edited since"):
        note("net")
    importlib.reload(sys.modules["blocks"])
    note("net")
    assert code_digest(["net"]) != before


def test_code_that_was_edited_before_it_is_loaded_is_refused(folder: Path) -> None:
    write(folder, net="def forward():\n    import late\n    return late.x\n", late="x = 1\n")
    digest_of("net")
    write(folder, late="x = 2\n")
    with pytest.raises(RobustsegError, match=r"late.py' as this run knows it, got a file that was edited since"):
        sys.modules["net"].forward()


def test_cached_bytecode_of_another_source_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write(folder, other="x = 1\n")
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if f.__module__ != "robustseg.core.code"])
    importlib.import_module("other")
    known = os.stat(folder / "other.py")
    assert list(folder.glob("__pycache__/other.*"))
    write(folder, other="x = 2\n")
    os.utime(folder / "other.py", ns=(known.st_atime_ns, known.st_mtime_ns))
    keep_sources()
    digest_of("other")
    assert sys.modules["other"].x == 2


def test_a_module_of_the_same_name_in_another_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, net=BUILD, blocks="used = 1\n")
    api.network("module('net:build', classes='camvid')")
    (folder / "b").mkdir()
    write(folder / "b", net=BUILD)
    monkeypatch.chdir(folder / "b")
    with pytest.raises(RobustsegError, match="which this process loaded before"):
        api.network("module('net:build', classes='camvid')")


def test_a_network_around_the_users_network_runs_the_users_code(folder: Path) -> None:
    write(folder, net=BUILD, blocks="used = 1\n")
    inner = "module('net:build', classes='camvid')"
    for spec in (inner, f"multiscale({inner}, scales=(1.0,))", f"jpeg({inner})", f"triplet({inner}, {inner}, {inner})"):
        assert api.network(spec).code == ("net",), spec
    around = api.network(f"jpeg(jpeg({inner}))")
    assert around.code == ("net",)
    plain = api.network("jpeg(zoo:erfnet-streets)")
    assert plain.code == ()
    assert plain.with_(network=api.network(inner)).code == ("net",)
