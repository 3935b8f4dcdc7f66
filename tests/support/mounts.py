"""File systems that come and go, for tests run by root."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def mount(*arguments: str) -> None:
    """Mount, or skip the test where that may not be done."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount")
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


def unmount(point: Path) -> None:
    """Unmount at once, whoever uses it."""
    subprocess.run(["umount", "--lazy", str(point)], check=True)


def is_mounted(point: Path) -> bool:
    """Whether something is mounted there; `ismount` sees no bind mount of the same file system."""
    return any(line.split()[4] == str(point) for line in Path("/proc/self/mountinfo").read_text().splitlines())


@contextmanager
def tmpfs(point: Path, size: str = "1m") -> Iterator[Path]:
    """An empty file system of its own, in memory."""
    point.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point))
    try:
        yield point
    finally:
        unmount(point)


class Share:
    """A file system that can be taken away from where it is seen; what lies on it stays."""

    def __init__(self, content: Path, point: Path) -> None:
        self.content = content
        self._point = point

    def show(self) -> None:
        """Let it be seen at its place."""
        mount("--bind", str(self.content), str(self._point))

    def hide(self) -> None:
        """Leave the empty mount point."""
        unmount(self._point)


@contextmanager
def seen_at(point: Path, content: Path) -> Iterator[Share]:
    """A directory that is mounted at `point`, until it is hidden."""
    share = Share(content, point)
    share.show()
    try:
        yield share
    finally:
        while is_mounted(point):
            share.hide()


@contextmanager
def shared(point: Path) -> Iterator[Share]:
    """A file system of its own that is mounted at `point`."""
    with tmpfs(point.with_name(f"share of {point.name}")) as content, seen_at(point, content) as share:
        yield share
