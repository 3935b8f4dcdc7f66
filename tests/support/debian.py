"""A small Debian to try things in, and the wheels that an installation needs: made once, and kept below `CACHE`."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path("/var/cache/tablefeed-tests")


class UnavailableError(Exception):
    """It cannot be had here; says why."""


@contextmanager
def locked(name: str, kind: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock in the cache, of a kind of `flock`. Blocks until it is free."""
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, kind)
        yield


def made(name: str, make: Callable[[Path], None]) -> Path:
    """The directory of that name in the cache; made first, whole or not at all, where it is not there."""
    there = CACHE / name
    with locked(name):
        if not there.exists():
            draft = CACHE / f"{name}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(mode=0o755)
            make(draft)
            draft.rename(there)
    return there


def run(*command: str, timeout: float = 600) -> str:
    """The output of a command. Raises UnavailableError with its last line when it fails."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip() or f"it ended with {done.returncode}").splitlines()
        raise UnavailableError(f"{Path(command[0]).name} failed: {lines[-1]}")
    return done.stdout


def mirror() -> str:
    """Where apt gets Debian's packages from on this machine."""
    wanted = ("Created-By: Packages", "Origin: Debian")
    for line in run("apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)", *wanted).splitlines():
        release, _, site = line.partition(" ")
        if "-" not in release:  # neither security nor updates
            return site
    raise UnavailableError("apt has no mirror of Debian here; has `apt-get update` been run?")


def bootstrap(release: str, packages: tuple[str, ...], into: Path) -> None:
    """Make a Debian with these packages and what they need."""
    if shutil.which("mmdebstrap"):  # does the same in a third of the time
        _mmdebstrap("apt", release, packages, into)
    else:
        run("debootstrap", "--variant=minbase", f"--include={','.join(packages)}", release, str(into), mirror())


def extract(release: str, packages: tuple[str, ...], into: Path) -> None:
    """Put there what these packages, and what they need, are made of. None is set up, which takes much longer."""
    if shutil.which("mmdebstrap"):
        _mmdebstrap("extract", release, packages, into)
    else:
        bootstrap(release, packages, into)


def _mmdebstrap(variant: str, release: str, packages: tuple[str, ...], into: Path) -> None:
    quick = ("--aptopt=Acquire::Languages none", "--dpkgopt=force-unsafe-io", "--quiet")
    what = (f"--variant={variant}", f"--include={','.join(packages)}")
    run("mmdebstrap", "--mode=root", *what, *quick, release, str(into), mirror())


def wheels(version: str) -> Path:
    """The wheels of all that an installation needs, for a version of Python such as "3.13"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    optional = [*extras["crc64"], *extras["postgres"]]
    wanted = [*project["project"]["dependencies"], *optional, *project["build-system"]["requires"]]
    constraints = ROOT / ".ci/constraints.txt"
    key = hashlib.sha256("\n".join([version, *wanted, constraints.read_text()]).encode()).hexdigest()[:8]

    def make(draft: Path) -> None:
        where = ("--only-binary=:all:", "--python-version", version, "--dest", str(draft))
        run(sys.executable, "-m", "pip", "download", "--quiet", "--constraint", str(constraints), *where, *wanted)

    return made(f"wheels-{key}", make)
