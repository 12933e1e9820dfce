"""Digests: of files, read again once they are written; of the user's code, as far as a network runs it."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustseg import api
from robustseg.core.provenance import code_digest, sha256

BUILD = "from torch import nn\nimport blocks\ndef build():\n    blocks.used\n    return nn.Conv2d(3, 11, 1)\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's folder, on the path; its modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("net", "other", "blocks", "driver", "pack") or name.startswith("pack."):
            del sys.modules[name]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def digest_of(*modules: str) -> str:
    for name in modules:
        importlib.import_module(name)
    return code_digest(modules)


def test_a_file_that_was_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mask.png"
    file.write_bytes(b"one")
    first = sha256(file)
    file.write_bytes(b"two")  # of the same size
    assert sha256(file) != first
    file.write_bytes(b"one")
    assert sha256(file) == first


def test_code_that_a_network_imports_counts(folder: Path) -> None:
    write(folder, net=BUILD, blocks="used = 1\n")
    before = digest_of("net")
    assert before
    write(folder, blocks="used = 2\n")
    assert code_digest(["net"]) != before
    write(folder, blocks="used = 1\n")
    assert code_digest(["net"]) == before


def test_code_that_a_network_does_not_import_does_not_count(folder: Path) -> None:
    write(folder, net=BUILD, blocks="used = 1\n", other="x = 1\n", driver="import net, other\n")
    alone = digest_of("net")
    assert digest_of("driver") != alone
    assert code_digest(["net"]) == alone
    write(folder, other="x = 2\n", driver="import net\n")
    assert code_digest(["net"]) == alone


@pytest.mark.parametrize(
    "line", ["from pack import deep", "from .deep import x", "import pack.deep", "from . import deep"]
)
def test_every_way_to_import_a_package_is_followed(folder: Path, line: str) -> None:
    (folder / "pack").mkdir()
    write(folder / "pack", __init__="", net=line + "\n", deep="x = 1\n")
    before = digest_of("pack.net")
    write(folder / "pack", deep="x = 2\n")
    assert code_digest(["pack.net"]) != before
    write(folder / "pack", deep="x = 1\n", __init__="# other\n")
    assert code_digest(["pack.net"]) != before


def test_installed_packages_do_not_count() -> None:
    assert code_digest(["robustseg.testing", "numpy"]) == ""
    assert code_digest([]) == ""


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
