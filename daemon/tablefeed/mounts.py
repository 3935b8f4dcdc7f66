"""Which file system holds a path, told from the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5))."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

_NETWORK = re.compile(
    r"9p|afs|beegfs|ceph|cifs|coda|drvfs|fuse\..*|glusterfs|gpfs|lustre|ncpfs|nfs4?|ocfs2|orangefs|pvfs2|smb[23]|smbfs"
    r"|vboxsf|virtiofs|vmhgfs"
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    device: int
    """As in `st_dev`."""
    point: str
    kind: str
    """The file system's type, such as `ext4` or `fuse.sshfs`."""

    @property
    def is_network(self) -> bool:
        """Whether others may write there without this kernel's knowledge: no events, no leases to rely on."""
        return _NETWORK.fullmatch(self.kind) is not None


def parse(text: str) -> Iterator[Mount]:
    """The mounts, in the order in which they were made; a line that is not understood is left out."""
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kinds = head.split(), tail.split()
        if len(fields) < 5 or not kinds:
            continue
        major, _, minor = fields[2].partition(":")
        if major.isdecimal() and minor.isdecimal():
            yield Mount(os.makedev(int(major), int(minor)), _unescape(fields[4]), kinds[0])


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


def covering(text: str, path: str) -> Mount | None:
    """The mount that holds an absolute path without links: the longest mount point, of equal ones the latest."""
    found = None
    for mount in parse(text):
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def of_device(text: str, device: int) -> Mount | None:
    """A mount of the file system with this `st_dev`."""
    return next((mount for mount in parse(text) if mount.device == device), None)


def read() -> str:
    """The text of mountinfo; empty where there is none."""
    try:
        return MOUNTINFO.read_text(errors="surrogateescape")
    except OSError:
        return ""


def holding(path: Path) -> Mount | None:
    """The mount that holds a path by now, links followed. Blocks; None where it cannot be told."""
    return covering(read(), os.path.realpath(path))
