import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.intake import Holder, public_directory, unprivileged
from tablefeed import mounts
from tablefeed.errors import DiskTrouble
from tablefeed.lease import Writer, ignore_lease_breaks, writer_of, writer_unknown
from tablefeed.model import FileVersion
from tablefeed.readiness import Observation
from tablefeed.watch.observe import glance, look, probe

NOW = 1_700_000_000.0


def glanced(root: Path, path: str, suffix: str | None = None) -> Observation:
    found = look(root, path)
    assert found is not None
    return glance(root, "orders", path, found, suffix, NOW)


def test_a_file_is_described_as_it_lies_there(tmp_path: Path) -> None:
    """The version, the ctime and the marker are those of the file system, and a probe adds the writer."""
    (tmp_path / "a.csv").write_text("1;2\n")
    (tmp_path / "a.csv.done").touch()
    stat = (tmp_path / "a.csv").stat()
    seen = glanced(tmp_path, "a.csv", ".done")
    assert seen.version == FileVersion.of("orders", "a.csv", stat)
    assert (seen.ctime_ns, seen.regular, seen.writer, seen.taken_at) == (stat.st_ctime_ns, True, Writer.UNKNOWN, NOW)
    assert seen.marker is not None
    assert seen.marker.ctime_ns == (tmp_path / "a.csv.done").stat().st_ctime_ns
    probed = probe(tmp_path, seen, NOW + 1)
    assert probed is not None
    assert (probed.version, probed.writer, probed.readable, probed.marker) == (
        seen.version,
        Writer.NONE,
        True,
        seen.marker,
    )


def test_a_marker_must_be_a_file(tmp_path: Path) -> None:
    """A directory or a link with the marker's name says nothing."""
    (tmp_path / "a.csv").touch()
    (tmp_path / "a.csv.done").mkdir()
    assert glanced(tmp_path, "a.csv", ".done").marker is None


def test_a_writer_in_another_process_is_seen_until_it_closes(tmp_path: Path) -> None:
    """The kernel tells who has the file open, although nothing is written."""
    holder = Holder(tmp_path / "a.csv")
    during = probe(tmp_path, glanced(tmp_path, "a.csv"), NOW)
    holder.close()
    after = probe(tmp_path, glanced(tmp_path, "a.csv"), NOW)
    assert during is not None
    assert during.writer is Writer.OPEN
    assert after is not None
    assert after.writer is Writer.NONE


def test_a_probe_leaves_no_lease_behind(tmp_path: Path) -> None:
    """Else the next writer would be held up by us."""
    (tmp_path / "a.csv").touch()
    with (tmp_path / "a.csv").open() as file:
        assert writer_of(file.fileno()) is Writer.NONE
        os.close(os.open(tmp_path / "a.csv", os.O_WRONLY | os.O_NONBLOCK))


def test_a_lease_that_is_not_permitted_says_nothing() -> None:
    """Without the owner's rights the writer is unknown, which is not the same as none."""
    with unprivileged():
        probed = probe(Path("/etc"), glanced(Path("/etc"), "passwd"), NOW)
    assert probed is not None
    assert probed.writer is Writer.UNKNOWN


def test_on_a_network_share_a_refused_lease_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS refuses leases with the same error as a writer does: taken for a writer, no file would ever be whole."""
    device = tmp_path.stat().st_dev
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    with (tmp_path / "a.csv").open("w"), (tmp_path / "a.csv").open() as reader:
        for kind, answer in (("nfs4", Writer.UNKNOWN), ("ext4", Writer.OPEN)):
            table.write_text(f"1 0 {os.major(device)}:{os.minor(device)} / / rw - {kind} x rw\n")
            assert writer_of(reader.fileno()) is answer


def test_a_broken_lease_does_not_end_the_process(tmp_path: Path) -> None:
    """A writer that comes while we hold the lease makes the kernel send SIGIO, which must not kill us."""
    (tmp_path / "a.csv").touch()
    script = (
        "import fcntl, os, sys\n"
        "from tablefeed.lease import ignore_lease_breaks\n"
        "ignore_lease_breaks()\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)\n"
        "print(flush=True); input()\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a.csv")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(BlockingIOError):
            os.open(tmp_path / "a.csv", os.O_WRONLY | os.O_NONBLOCK)
        process.communicate(b"\n")
    assert process.returncode == 0


def test_lease_breaks_are_ignored_by_the_process_that_asks_for_it() -> None:
    """The signal's disposition is changed, and only when asked for."""
    before = signal.getsignal(signal.SIGIO)
    try:
        ignore_lease_breaks()
        assert signal.getsignal(signal.SIGIO) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGIO, before)


def test_a_foreign_write_lease_counts_as_a_writer(tmp_path: Path) -> None:
    """Samba holds such leases for its clients; the open is refused, and must not wait for them."""
    (tmp_path / "a.csv").touch()
    script = (
        "import fcntl, os, signal, sys\n"
        "signal.signal(signal.SIGIO, signal.SIG_IGN)\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
        "print(flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a.csv")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        began = time.monotonic()
        probed = probe(tmp_path, glanced(tmp_path, "a.csv"), NOW)
        took = time.monotonic() - began
        process.communicate(b"\n")
    assert probed is not None
    assert probed.writer is Writer.OPEN
    assert took < 10  # the kernel would wait for 45 s before it took the lease away


def test_a_probe_describes_the_file_after_the_writer_was_asked_for(tmp_path: Path) -> None:
    """What a writer wrote and closed just before must show in the times, else half a file could look quiet."""
    path = tmp_path / "a.csv"
    path.write_text("half")
    seen = glanced(tmp_path, "a.csv")

    def writes_and_closes(fd: int) -> Writer:
        path.write_text("half and the rest")
        return writer_of(fd)

    probed = probe(tmp_path, seen, NOW, writes_and_closes)
    assert probed is not None
    assert probed.writer is Writer.NONE
    assert probed.version.size == len("half and the rest")


def test_links_and_pipes_are_neither_followed_nor_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link, a pipe or a socket at the path is no file, even if it took a file's place after the glance."""
    (tmp_path / "real.csv").write_text("x")
    seen = glanced(tmp_path, "real.csv")
    (tmp_path / "real.csv").rename(tmp_path / "elsewhere")

    def replaced() -> Observation | None:
        probed = probe(tmp_path, seen, NOW)
        (tmp_path / "real.csv").unlink()
        return probed

    (tmp_path / "real.csv").symlink_to(tmp_path / "elsewhere")
    link = replaced()
    os.mkfifo(tmp_path / "real.csv")
    pipe = replaced()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tmp_path)
        listener.bind("real.csv")
        door = replaced()
    assert [found and found.regular for found in (link, pipe, door)] == [False, False, False]


def test_no_link_is_followed_on_the_way_to_a_file(tmp_path: Path) -> None:
    """A linked directory would lead out of the feed."""
    (tmp_path / "feed").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.csv").touch()
    (tmp_path / "feed/link").symlink_to(tmp_path / "other")
    assert look(tmp_path / "feed", "link/a.csv") is None
    assert look(tmp_path, "other/a.csv") is not None


def test_what_has_vanished_is_none(tmp_path: Path) -> None:
    """A file, a directory on the way and the root itself may go at any moment."""
    (tmp_path / "a.csv").touch()
    seen = glanced(tmp_path, "a.csv")
    (tmp_path / "a.csv").unlink()
    assert probe(tmp_path, seen, NOW) is None
    assert look(tmp_path, "a.csv") is None
    assert look(tmp_path, "no/such/a.csv") is None
    assert look(tmp_path / "gone", "a.csv") is None


def test_an_unreadable_file_is_told_as_such() -> None:
    """EACCES on the file itself is the file's fault, and no trouble of the disk."""
    with public_directory() as root:
        (root / "a.csv").touch()
        (root / "a.csv").chmod(0)
        with unprivileged():
            probed = probe(root, glanced(root, "a.csv"), NOW, writer_unknown)
    assert probed is not None
    assert not probed.readable


def test_other_trouble_is_the_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error or a shortage of descriptors names the file, and never makes it look unreadable or vanished."""
    (tmp_path / "a.csv").touch()
    seen = glanced(tmp_path, "a.csv")

    def broken(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("tablefeed.watch.observe.os.open", broken)
    with pytest.raises(DiskTrouble, match=r"a\.csv: Too many open files"):
        probe(tmp_path, seen, NOW)
    with pytest.raises(DiskTrouble):
        look(tmp_path, "a.csv")
