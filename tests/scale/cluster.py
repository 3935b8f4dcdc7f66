"""A PostgreSQL of its own, on a Unix socket in a directory of its own, for as long as it is measured."""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REMEDY = "PostgreSQL's programs are missing (initdb, pg_ctl, pgbench): apt-get install postgresql postgresql-contrib"
_PROGRAMS = ("initdb", "pg_ctl", "psql", "pgbench")
_TICKS = os.sysconf("SC_CLK_TCK")


def binaries() -> Path | None:
    """Where PostgreSQL's programs are, of the newest version that has all of them; None where there is none."""
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: _number(each.parent.name), reverse=True)
    return next((each for each in found if all((each / name).exists() for name in _PROGRAMS)), None)


def _number(name: str) -> float:
    return float(name) if re.fullmatch(r"[\d.]+", name) else 0.0


@dataclass(frozen=True, slots=True)
class Bench:
    """What pgbench tells of a run, and what PostgreSQL spent meanwhile."""

    scripts: int
    seconds: float
    per_second: float
    """Scripts a second."""
    latency: float
    """Seconds for a script."""
    cpu: float
    """Seconds of PostgreSQL's processes."""
    connection: int
    """Bytes of memory that the largest backend had for itself."""


class Cluster:
    """A server that runs."""

    def __init__(self, programs: Path, directory: Path, user: str | None) -> None:
        self._programs = programs
        self.directory = directory
        self._user = user

    def sql(self, text: str) -> str:
        """Run statements, each for itself; returns what the last one gives."""
        asked = [
            *self._command("psql"),
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "-v",
            "ON_ERROR_STOP=1",
        ]
        done = subprocess.run(asked, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"PostgreSQL refused: {done.stderr.strip()}")
        return done.stdout.strip()

    def bench(self, script: str, *, clients: int, seconds: int, durable: bool = True) -> Bench:
        """Run a script again and again on so many connections."""
        path = self.directory / "script.sql"
        path.write_text(script)
        before = self._cpu()
        running = subprocess.Popen(
            [
                *self._command("pgbench"),
                *("--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--time={seconds}", f"--file={path}"),
            ],
            env={**os.environ, "PGOPTIONS": f"-c synchronous_commit={'on' if durable else 'off'}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        memory = 0
        began = time.monotonic()
        while True:
            try:
                out, err = running.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                memory = max([memory, *map(_own_memory, self._children())])
        if running.returncode:
            raise RuntimeError(f"pgbench failed: {err.strip()}")
        return Bench(
            scripts=int(_found(r"actually processed: (\d+)", out)),
            seconds=time.monotonic() - began,
            per_second=float(_found(r"tps = ([\d.]+)", out)),
            latency=float(_found(r"latency average = ([\d.]+) ms", out)) / 1e3,
            cpu=self._cpu() - before,
            connection=memory,
        )

    def control(self, *arguments: str) -> None:
        """Run `pg_ctl`, which waits until the server has started or ended."""
        self._run("pg_ctl", "-D", str(self.directory / "data"), "--wait", *arguments)

    def make(self) -> None:
        """Make the data directory."""
        self._run("initdb", "-D", str(self.directory / "data"), "-U", "postgres", "--auth=trust", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        log = self.directory / "log"
        with log.open("a") as out:
            done = subprocess.run(
                [self._programs / program, *arguments],
                cwd=self.directory,
                user=self._user,
                group=None if self._user is None else pwd.getpwnam(self._user).pw_gid,
                extra_groups=None if self._user is None else [],
                stdout=out,
                stderr=out,
                check=False,
            )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {log.read_text()[-500:].strip()}")

    def _command(self, program: str) -> list[str]:
        return [str(self._programs / program), "-h", str(self.directory), "-U", "postgres", "-d", "postgres"]

    def _postmaster(self) -> int:
        return int((self.directory / "data/postmaster.pid").read_text().split()[0])

    def _children(self) -> list[int]:
        pid = self._postmaster()
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            stat = _stat(path)
            if stat and int(stat[1]) == pid:
                found.append(int(path.parent.name))
        return found

    def _cpu(self) -> float:
        """Seconds of all its processes until now, those that have ended too."""
        own = Path(f"/proc/{self._postmaster()}/stat")
        while True:
            before = _stat(own)[11:15]
            others = [_stat(Path(f"/proc/{pid}/stat"))[11:13] for pid in self._children()]
            # A process that ended meanwhile has gone from the one sum to the other.
            if before[2:] == _stat(own)[13:15]:
                return sum(map(int, [*before, *(part for stat in others for part in stat)])) / _TICKS


def _stat(path: Path) -> list[str]:
    """The fields after the name in brackets; nothing when the process has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _own_memory(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return int(_found(r"Anonymous:\s+(\d+) kB", text)) * 1024


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"pgbench's output has no {pattern!r}: {text[-300:]}")
    return match[1]


@contextmanager
def cluster(programs: Path, scratch: Path, options: Sequence[str] = ()) -> Iterator[Cluster]:
    """A server with the settings of Debian but for `options` (`name=value`). It and its files are gone afterwards."""
    # The server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="tablefeed-scale-", dir=scratch) as name:
        directory = Path(name)
        if user is not None:
            shutil.chown(directory, user)
        (directory / "log").touch()
        server = Cluster(programs, directory, user)
        server.make()
        given = [f"unix_socket_directories={directory}", "listen_addresses=", *options]
        server.control("start", "-o", " ".join(f"-c '{each}'" for each in given))
        try:
            yield server
        finally:
            server.control("stop", "--mode=fast")
