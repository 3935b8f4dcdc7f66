"""The machine in words, and the versions of what is measured; no name, address or path of it."""

import os
import platform
import re
import sqlite3
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.places import file_system
from bench.rows.s3 import s5cmd_binary
from bench.servers import nginx_binary
from support.postgres import programs
from support.rclone import rclone_binary
from tablefeed import __version__

_NUMBER = re.compile(r"\d+(?:\.\d+)+")


def machine(scratch: Path) -> dict[str, str]:
    """What the machine is, as far as it matters for speed. `scratch`: where the measured files lie."""
    cpus = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    total = re.search(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    release = _NUMBER.match(platform.release())
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "CPU": cpus[0].strip() if cpus else platform.machine(),
        "memory": f"{round(int(total[1]) / 2**20)} GiB" if total else "unknown",
        "kernel": f"{platform.system()} {release[0] if release else platform.release()}",
        "file system": file_system(scratch),
    }


def versions() -> dict[str, str]:
    """Of tablefeed, of what it stands on, and of its peers; what is missing is left out."""
    found = {
        "tablefeed": __version__,
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        **{name: _distribution(name) for name in ("aiohttp", "uvloop", "requests", "psycopg")},
        "PostgreSQL": _printed(str(servers / "postgres") if (servers := programs()) else None, "--version"),
        "nginx": _printed(nginx_binary(), "-v"),
        "curl": _printed("curl", "--version"),
        "rclone": _printed(rclone_binary(), "version"),
        "s5cmd": _printed(s5cmd_binary(), "version"),
    }
    return {name: value for name, value in found.items() if value}


def _distribution(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _printed(program: str | None, argument: str) -> str:
    """The first version number in what a program prints; empty where it is missing."""
    if program is None:
        return ""
    try:
        told = subprocess.run([program, argument], capture_output=True, text=True, timeout=20, check=False)
    except FileNotFoundError:
        return ""
    match = _NUMBER.search(told.stdout + told.stderr)
    return match[0] if match else ""
