"""The MD5 of a file that may not have to be sent, on real files."""

import hashlib
from pathlib import Path

import pytest

from support.stores import a_file
from tablefeed.errors import SourceChanged
from tablefeed.lease import Writer, writer_unknown
from tablefeed.upload import digest


def test_the_digest_is_that_of_all_bytes(tmp_path: Path) -> None:
    """Also of a file that is longer than one read."""
    version = a_file(tmp_path / "a.csv", 3_000_000)
    expected = hashlib.md5((tmp_path / "a.csv").read_bytes(), usedforsecurity=False).hexdigest()
    assert digest(tmp_path, version, writer_unknown) == expected


def test_another_version_has_no_digest(tmp_path: Path) -> None:
    """It was replaced after it was queued."""
    version = a_file(tmp_path / "a.csv", 100)
    a_file(tmp_path / "a.csv", 200)
    with pytest.raises(SourceChanged):
        digest(tmp_path, version, writer_unknown)


def test_a_file_that_changes_while_it_is_read_has_no_digest(tmp_path: Path) -> None:
    """Else content that nobody delivered could pass for content that was."""
    version = a_file(tmp_path / "a.csv", 100)

    def change(fd: int) -> Writer:
        (tmp_path / "a.csv").write_bytes(b"other")
        return Writer.NONE

    with pytest.raises(SourceChanged):
        digest(tmp_path, version, change)
