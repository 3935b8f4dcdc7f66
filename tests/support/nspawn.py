"""Machines with a real systemd as PID 1: containers of systemd-nspawn over a Debian that is made once and kept.

What is made is kept below `CACHE`, outside the repository: the Debian, the wheels of the daemon's dependencies, and a
layer for each state of the sources in which the daemon is installed. Machines write to memory only.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from support.debian import CACHE, ROOT, UnavailableError, bootstrap, locked, made, wheels

SOURCE = "/usr/src/tablefeed"
"""Where a machine finds the sources."""
_PACKAGES = ("systemd", "systemd-sysv", "dbus", "passwd", "python3", "python3-venv", "make")
_SOURCES = ("daemon", "systemd", "config", "pyproject.toml", ".ci/constraints.txt", "Makefile", "README.md")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START = """
set -e
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
[ -z "$GROUPS_OF_IT" ] || for group in $GROUPS_OF_IT; do echo $$ > "$group/cgroup.procs"; done
mount -t tmpfs tmpfs "$PLACE"
mkdir "$PLACE/root" "$PLACE/upper" "$PLACE/work"
[ -n "$UPPER" ] || { UPPER=$PLACE/upper; WORK=$PLACE/work; }
mount -t overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" overlay "$PLACE/root"
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1  # newer versions of systemd boot with no other
exec systemd-nspawn --quiet --boot --register=no --keep-unit --private-network --console=pipe --machine="$NAME" \\
  --directory="$PLACE/root" --bind-ro="$SOURCES" --bind-ro="$WHEELS:/wheels"
"""


def _debian() -> Path:
    """A small Debian with systemd and Python: of the release that runs here, or of $TABLEFEED_TEST_RELEASE."""
    lines = Path("/etc/os-release").read_text().splitlines()
    code = next((line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME=")), "")
    release = os.environ.get("TABLEFEED_TEST_RELEASE", code)
    key = hashlib.sha256(",".join(_PACKAGES).encode()).hexdigest()[:8]
    return made(f"{release}-{key}", lambda draft: bootstrap(release, _PACKAGES, draft))


def _python_of(debian: Path) -> str:
    return next(path.name for path in (debian / "usr/lib").glob("python3.*")).removeprefix("python")


class Machine:
    """A container that has booted. Commands are run in it as root, without what is particular to this machine."""

    def __init__(self, leader: int) -> None:
        self.leader = leader
        """The process id of its PID 1, as it is seen from outside."""

    def command(self, *command: str) -> list[str]:
        """What runs a command in it."""
        environ = (f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "COLUMNS=200")
        return ["nsenter", f"--target={self.leader}", "--all", f"--wd=/proc/{self.leader}/root{SOURCE}",
                "env", "-i", *environ, *command]  # fmt: skip

    def attempt(self, *command: str, text: str = "", timeout: float = 60) -> tuple[int, str]:
        """(exit code, all output) of a command that reads `text`."""
        done = subprocess.run(
            self.command(*command), input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def run(self, *command: str, text: str = "", timeout: float = 60) -> str:
        """The output of a command that must succeed."""
        code, output = self.attempt(*command, text=text, timeout=timeout)
        assert code == 0, f"{command} ended with {code}:\n{output}"
        return output

    def shell(self, line: str, text: str = "", timeout: float = 60) -> str:
        """The output of a line of shell that must succeed."""
        return self.run("/bin/sh", "-c", line, text=text, timeout=timeout)

    def until(self, holds: Callable[[], object], patience: float = 60) -> None:
        """Wait until a condition holds; fails with the journal of the service."""
        end = time.monotonic() + patience
        while not holds():
            assert time.monotonic() < end, f"it did not happen within {patience} s:\n{self.journal()[-6000:]}"
            time.sleep(0.05)

    def journal(self, unit: str = "tablefeed") -> str:
        """All that was logged of a unit, by itself and by systemd."""
        return self.run("journalctl", f"--unit={unit}", "--output=cat", "--no-pager", "--all")

    def show(self, *names: str, unit: str = "tablefeed") -> dict[str, str]:
        """Properties of a unit."""
        lines = self.run("systemctl", "show", f"--property={','.join(names)}", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


def _groups(name: str) -> list[Path]:
    """Control groups of its own for a machine, below this process's: one in each hierarchy that systemd uses."""
    mounts = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options):
            mounts["" if kind == "cgroup2" else "name=systemd"] = Path(fields.split(" ")[4])
    groups = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in mounts:
            groups.append(mounts[controllers] / path.lstrip("/") / name)
    return groups


def _removed(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        with suppress(OSError):
            os.rmdir(directory)
    return not group.exists()


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _booted(process: subprocess.Popen[str]) -> Machine:
    """The machine once its boot is over."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if process.poll() is not None:
            assert process.stdout is not None
            lines = process.stdout.read().strip().splitlines() or [f"it ended with {process.returncode}"]
            raise UnavailableError(f"systemd-nspawn failed: {lines[-1]}")
        for leader in _children(process.pid):
            machine = Machine(leader)
            with suppress(OSError, subprocess.TimeoutExpired):
                _, state = machine.attempt("systemctl", "is-system-running", timeout=10)
                if state.strip() in ("running", "degraded"):
                    return machine
        time.sleep(0.05)
    raise UnavailableError("systemd-nspawn: it did not boot within a minute")


@contextmanager
def machine(*lowers: Path, wheels: Path, upper: Path | None = None) -> Iterator[Machine]:
    """Boot a machine over these layers, the uppermost first; it ends with the block.

    What it writes goes to `upper`, which must be empty, or is forgotten. Raises UnavailableError.
    """
    name = f"tablefeed-{uuid.uuid4().hex[:12]}"
    place = CACHE / name
    place.mkdir(parents=True)
    work = CACHE / f"{name}.work"
    groups = [] if Path("/run/systemd/system").exists() else _groups(name)
    for directory in (work, *groups):
        directory.mkdir()
    environ = {
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "NAME": name, "PLACE": str(place), "WORK": str(work),
        "UPPER": str(upper or ""), "LOWER": ":".join(map(str, lowers)), "SOURCES": f"{ROOT}:{SOURCE}",
        "WHEELS": str(wheels), "GROUPS_OF_IT": " ".join(map(str, groups)),
    }  # fmt: skip
    process = subprocess.Popen(
        ("unshare", "--mount", "--propagation=private", "/bin/sh", "-c", _START),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield _booted(process)
    finally:
        for child in _children(process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.kill()
        process.communicate()
        end = time.monotonic() + 10
        while groups and time.monotonic() < end:
            groups = [group for group in groups if not _removed(group)]
            time.sleep(0.05)
        place.rmdir()
        shutil.rmtree(work, ignore_errors=True)


def _state_of_sources() -> str:
    digest = hashlib.sha256()
    for top in _SOURCES:
        for path in sorted([ROOT / top, *(ROOT / top).rglob("*")]):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


class Machines:
    """Boots machines in which the daemon is installed."""

    def __init__(self, installation: Sequence[str]) -> None:
        """`installation`: the lines of shell that install the daemon. Raises UnavailableError."""
        if os.geteuid() != 0:
            raise UnavailableError("machines with a real systemd need root")
        for tool in ("systemd-nspawn", "nsenter", "unshare", "apt-get"):
            if shutil.which(tool) is None:
                raise UnavailableError(f"there is no {tool} here")
        if not (shutil.which("mmdebstrap") or shutil.which("debootstrap")):
            raise UnavailableError("there is no debootstrap here")
        self._debian = _debian()
        self._wheels = wheels(_python_of(self._debian))
        key = hashlib.sha256("\n".join([self._debian.name, self._wheels.name, *installation]).encode()).hexdigest()[:8]
        self._installed = f"installed-{_state_of_sources()}-{key}"
        made(self._installed, lambda draft: self._install(draft, installation))
        self._forget_older()

    def _install(self, draft: Path, installation: Sequence[str]) -> None:
        with machine(self._debian, wheels=self._wheels, upper=draft) as new:
            new.shell("cat > /etc/pip.conf", "[global]\nno-index = true\nfind-links = /wheels\n")
            for line in installation:
                new.shell(line, timeout=300)
            new.run("sync")

    def _forget_older(self) -> None:
        """Remove installations of other states of the sources, unless a machine runs over one."""
        for old in CACHE.glob("installed-*-*.lock"):
            if old.stem != self._installed and not old.stem.endswith(".draft"):
                with old.open("w") as file, suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(CACHE / old.stem, ignore_errors=True)
                    old.unlink(missing_ok=True)

    @contextmanager
    def boot(self) -> Iterator[Machine]:
        """A fresh machine in which the daemon is installed and nothing else has happened."""
        with (
            locked(self._installed, fcntl.LOCK_SH),
            machine(CACHE / self._installed, self._debian, wheels=self._wheels) as fresh,
        ):
            yield fresh
