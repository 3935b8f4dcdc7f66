import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from support.archive import feed_at
from tablefeed import mounts
from tablefeed.archive.directories import probe_directories
from tablefeed.errors import DiskTrouble
from tablefeed.model import FileVersion
from tablefeed.presence import assert_present


@pytest.mark.parametrize("archive", ["archive/%Y", "delete", "leave"])
def test_nothing_is_found_where_all_is_well(tmp_path: Path, archive: str) -> None:
    """Directories that are missing but can be made are no problem, and are not made by looking."""
    findings = probe_directories(feed_at(tmp_path, archive=archive))
    assert (findings.problems, findings.notes) == ([], [])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """The problem names the feed and its directory, and the remedy the setting."""
    [problem] = probe_directories(feed_at(tmp_path / "away")).problems
    assert f"{tmp_path}/away of feed orders cannot be used: No such file" in problem.what
    assert "`directory`" in problem.remedy


def test_a_directory_must_be_one(tmp_path: Path) -> None:
    """A file in the directory's place is a problem."""
    (tmp_path / "file").touch()
    [problem] = probe_directories(feed_at(tmp_path / "file")).problems
    assert "is not a directory" in problem.what


@pytest.mark.parametrize(("key", "below"), [("archive", "taken/%Y/%m"), ("failed", "taken/refused")])
def test_a_file_in_a_targets_way_is_named(tmp_path: Path, key: str, below: str) -> None:
    """A file where the archive's or `failed`'s directory must be made is told before anything is moved."""
    (tmp_path / "taken").touch()
    [problem] = probe_directories(feed_at(tmp_path, **{key: below})).problems
    assert f"`{key}`" in problem.what
    assert f"{tmp_path}/taken is not a directory" in problem.what


def test_a_dangling_link_is_no_directory(tmp_path: Path) -> None:
    """An archive behind a link that leads nowhere is a problem."""
    (tmp_path / "archive").symlink_to(tmp_path / "nowhere")
    [problem] = probe_directories(feed_at(tmp_path)).problems
    assert "No such file" in problem.what


def test_another_file_system_is_worth_a_note(tmp_path: Path) -> None:
    """An archive on another file system works, and is said to be slower."""
    shm = Path("/dev/shm")  # noqa: S108 - the tmpfs that every Linux has
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=shm) as elsewhere:
        findings = probe_directories(feed_at(tmp_path, archive=f"{elsewhere}/%Y"))
    assert findings.problems == []
    [note] = findings.notes
    assert f"{elsewhere} of feed orders is on another file system" in note


def test_an_archive_in_the_drop_directory_itself_is_a_problem(tmp_path: Path) -> None:
    """Files cannot be moved to where they are dropped."""
    [problem] = probe_directories(feed_at(tmp_path, archive=".")).problems
    assert "`archive`" in problem.what
    assert "dropped" in problem.what


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
@pytest.mark.parametrize(("mode", "archive", "told"), [(0o500, "archive", "not writable"), (0o300, "leave", "be read")])
def test_missing_permissions_are_told(tmp_path: Path, mode: int, archive: str, told: str) -> None:
    """A directory that may not be read or, where files must be moved out of it, not be written is a problem."""
    tmp_path.chmod(mode)
    try:
        [problem] = probe_directories(feed_at(tmp_path, archive=archive)).problems
    finally:
        tmp_path.chmod(0o700)
    assert told in problem.what
    assert f"uid {os.geteuid()}" in problem.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_what_leaves_its_files_needs_no_permission_to_move_them(tmp_path: Path) -> None:
    """With `archive = "leave"` a read-only directory is only worth a note."""
    tmp_path.chmod(0o500)
    try:
        findings = probe_directories(feed_at(tmp_path, archive="leave"))
    finally:
        tmp_path.chmod(0o700)
    assert findings.problems == []
    assert "refused stay" in findings.notes[0]


@pytest.mark.parametrize(
    ("kind", "root", "is_there"), [("nfs4", 0, True), ("ext4", 0, False), ("nfs4", 1, False), ("nfs4", None, False)]
)
def test_a_share_is_the_same_on_every_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, root: int | None, is_there: bool
) -> None:
    """A network share is told by the inode of its root, since each mount of it has a device of its own; a local file
    system by its device as well. What cannot be told is taken for another."""
    (table := tmp_path / "mountinfo").write_text(f"1 0 0:99 / / rw - {kind} host:/x rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    (directory := tmp_path / "drop").mkdir()
    found = directory.stat()
    inode = None if root is None else found.st_ino + root
    removed = FileVersion("orders", "a.csv", found.st_dev + 1, inode=5, size=1, mtime_ns=1, root=inode)
    with nullcontext() if is_there else pytest.raises(DiskTrouble, match="is it mounted"):
        assert_present(directory, removed)
