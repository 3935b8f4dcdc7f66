"""Who writes a file: the kernel refuses a read lease while anybody has it open for writing (fcntl(2))."""

import fcntl
import os
import signal
from enum import Enum

from tablefeed import mounts


class Writer(Enum):
    """Whether some process has a file open for writing."""

    NONE = "none"
    OPEN = "open"
    UNKNOWN = "unknown"
    """The kernel does not say: leases are switched off, not permitted, or not supported there."""


def writer_of(fd: int) -> Writer:
    """Who writes the file behind a read-only descriptor, at this moment.

    A lease needs the file's owner or CAP_LEASE. Network file systems refuse it with the same EAGAIN for reasons of
    their own (NFSv4 without a delegation: Linux, fs/nfs/nfs4proc.c), so that there it tells nothing.
    The process must `ignore_lease_breaks`, else a writer that comes in this moment ends it.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return Writer.UNKNOWN if _on_network(fd) else Writer.OPEN
    except OSError:
        return Writer.UNKNOWN
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return Writer.OPEN  # the kernel has taken the lease away: a writer came and lost patience
    return Writer.NONE


def writer_unknown(fd: int) -> Writer:
    """Stands for `writer_of` where no lease is to be relied on. Returns UNKNOWN."""
    del fd
    return Writer.UNKNOWN


def _on_network(fd: int) -> bool:
    mount = mounts.of_device(mounts.read(), os.fstat(fd).st_dev)
    return mount is not None and mount.is_network


def ignore_lease_breaks() -> None:
    """Let SIGIO pass: the kernel sends it when a lease is broken, and by default it ends the process."""
    signal.signal(signal.SIGIO, signal.SIG_IGN)
