"""Digests of files: read again once they are written."""

import os
from pathlib import Path

from robustseg.core.provenance import sha256


def test_a_file_that_was_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mask.png"
    file.write_bytes(b"one")
    first = sha256(file)
    file.write_bytes(b"two")  # of the same size
    assert sha256(file) != first
    file.write_bytes(b"one")
    assert sha256(file) == first


def test_a_file_that_keeps_its_time_and_size_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mask.png"
    file.write_bytes(b"one")
    first, known = sha256(file), os.stat(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert sha256(file) != first
