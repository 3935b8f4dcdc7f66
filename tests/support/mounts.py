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


@contextmanager
def tmpfs(point: Path, size: str = "1m") -> Iterator[Path]:
    """An empty file system of its own, in memory."""
    point.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point))
    try:
        yield point
    finally:
        unmount(point)
