"""What operators and newcomers get: wheel, constraints, Makefile, unit, image."""

import importlib.metadata
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tablefeed import __version__
from tablefeed.errors import Exit

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = [line for line in (ROOT / ".ci/constraints.txt").read_text().splitlines() if not line.startswith("#")]
TARGETS = (
    "help",
    "setup",
    "demo",
    "install",
    "test",
    "image",
    "soak",
    "bench",
    "scale",
    "screenshots",
    "lint",
    "format",
    "clean",
)


def requirements() -> Iterator[str]:
    """The names of all distributions that development here needs, ours aside."""
    declared = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    waiting = [Requirement(text) for text in declared]
    seen = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        yield key[0]
        further = map(Requirement, importlib.metadata.distribution(wanted.name).requires or [])
        extras = ("", *wanted.extras)
        waiting += [r for r in further if r.marker is None or any(r.marker.evaluate({"extra": e}) for e in extras)]


def test_constraints_name_versions_and_nothing_else() -> None:
    """No address and no option of pip stands in the constraints: where packages come from is each one's own."""
    assert [pin for pin in PINS if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", pin)] == []


def test_constraints_cover_all_that_is_installed_for_us() -> None:
    """Nothing that we need, directly or not, is left at the latest version of the day."""
    pinned = {canonicalize_name(pin.partition("==")[0]) for pin in PINS}
    assert len(pinned) == len(PINS)
    assert set(requirements()) - pinned == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the tree."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed here")
    copy = tmp_path_factory.mktemp("tree") / "tablefeed"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copy)
    for name in ("daemon", "tests", "config", "systemd"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=copy, check=True, capture_output=True
    )
    (built,) = copy.glob("dist/*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_the_whole_package_and_no_tests(wheel: zipfile.ZipFile) -> None:
    """Migrations, the page and the typing marker come along; one package and its metadata is all there is."""
    names = wheel.namelist()
    assert {"tablefeed/py.typed", "tablefeed/ledger/migrations/env.py"} <= set(names)
    assert any(re.fullmatch(r"tablefeed/ledger/migrations/versions/0001\w*\.py", name) for name in names)
    package = ROOT / "daemon"
    sources = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.is_file()}
    sources |= {str(path.relative_to(package)) for path in (package / "tablefeed/web/static").iterdir()}
    assert "tablefeed/web/static/index.html" in sources
    assert sources <= set(names)
    assert {name.split("/")[0] for name in names} == {"tablefeed", f"tablefeed-{__version__}.dist-info"}


def test_the_wheel_starts_the_command(wheel: zipfile.ZipFile) -> None:
    """The script that operators call is declared, for the Python that we support."""
    info = f"tablefeed-{__version__}.dist-info"
    assert "tablefeed = tablefeed.cli.app:main" in wheel.read(f"{info}/entry_points.txt").decode()
    assert "Requires-Python: >=3.11" in wheel.read(f"{info}/METADATA").decode()


FAKE_PYTHON = """#!/bin/sh
echo "$*" >> "$FAKE_LOG"
env >> "$FAKE_LOG.environ"
case "$*" in
  "-m venv --clear .venv") rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python;;
  *"$FAKE_FAILURE"*) exit 1;;
esac
"""


class Tree:
    """A clone, and a Python that notes what it is asked."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.python = directory / "python of ours"
        self.log = directory / "log"

    def fill(self) -> None:
        """Make the clone, as far as the Makefile needs it."""
        (self.directory / ".ci").mkdir(parents=True)
        for name in ("Makefile", "pyproject.toml", ".ci/constraints.txt"):
            shutil.copy(ROOT / name, self.directory / name)
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)

    def make(
        self, *arguments: str, failure: str = "no such argument", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run make from another directory; the Python fails where its arguments contain `failure`."""
        ours = {"FAKE_LOG": str(self.log), "FAKE_FAILURE": failure, **environ}
        return make("-C", str(self.directory), f"PYTHON={self.python}", *arguments, **ours)

    def asked(self) -> list[str]:
        """What Python was asked since the last time, but for the questions whether it will do."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("-c")]


def make(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell of its own, outside the tree."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd="/", capture_output=True, text=True, env={**outer, **environ}, check=False
    )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    clone = Tree(tmp_path / "a clone with spaces")
    clone.fill()
    return clone


def test_make_alone_explains_every_target() -> None:
    """A newcomer who types `make` sees all that can be made."""
    result = make("-s", "-C", str(ROOT))
    assert re.findall(r"^make (\w+) +\S", result.stdout, re.MULTILINE) == list(TARGETS)
    assert result.returncode == 0


def test_the_demo_needs_no_development_tools(tree: Tree) -> None:
    """The first thing that a newcomer runs installs the daemon's own libraries only, and the second time nothing."""
    assert tree.make("demo", "ARGS=--once").returncode == 0
    assert tree.asked() == [
        "-m venv --clear .venv",
        "-m pip install --quiet --constraint .ci/constraints.txt --editable .",
        "-m tablefeed demo --once",
    ]
    assert tree.make("demo").returncode == 0
    assert tree.asked() == ["-m tablefeed demo"]


def test_development_tools_are_added_to_the_same_environment_once(tree: Tree) -> None:
    """After a demo, the set-up adds what is missing; after a set-up, neither has anything left to do."""
    tree.make("demo")
    tree.asked()
    tree.make("setup")
    assert tree.asked() == ["-m pip install --quiet --constraint .ci/constraints.txt --editable .[dev]"]
    tree.make("setup", "demo")
    assert tree.asked() == ["-m tablefeed demo"]


@pytest.mark.parametrize("name", ["pyproject.toml", ".ci/constraints.txt"])
def test_changed_requirements_are_installed(tree: Tree, name: str) -> None:
    """The environment is upgraded in place when, and only when, the requirements have changed."""
    tree.make("setup")
    tree.asked()
    later = (tree.directory / ".venv/.dev").stat().st_mtime + 10
    os.utime(tree.directory / name, (later, later))
    tree.make("setup")
    assert [line.rpartition(" ")[2] for line in tree.asked()] == [".", ".[dev]"]


@pytest.mark.parametrize("step", ["--editable .", "--editable .[dev]"])
def test_an_interrupted_set_up_is_repeated_from_the_start(tree: Tree, step: str) -> None:
    """Half an environment is never taken for a whole one."""
    assert tree.make("setup", failure=step).returncode != 0
    tree.asked()
    assert tree.make("setup").returncode == 0
    assert [line.rpartition(" ")[2] for line in tree.asked()] == [".venv", ".", ".[dev]"]


def test_an_environment_that_was_moved_is_made_anew(tree: Tree) -> None:
    """A virtual environment holds its own path; in a moved tree it would run the old one."""
    tree.make("demo")
    tree.asked()
    moved = Tree(tree.directory.rename(tree.directory.with_name("moved")))
    moved.make("demo")
    assert moved.asked()[0] == "-m venv --clear .venv"


def test_the_environment_of_another_project_stays_out(tree: Tree) -> None:
    """What the shell has set for something else reaches neither Python nor the daemon; what configures pip does."""
    foreign = dict.fromkeys(("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "TABLEFEED_FEEDS"), "foreign")
    tree.make("demo", PIP_RETRIES="7", **foreign)
    seen = (tree.directory / "log.environ").read_text()
    assert "foreign" not in seen
    assert "PIP_RETRIES=7" in seen


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        ("version_info", r"older than 3\.11.*make PYTHON="),
        ("ensurepip", r"virtual environments.*apt install python3-venv"),
    ],
)
def test_a_python_that_will_not_do_is_refused_in_one_line(tree: Tree, failure: str, said: str) -> None:
    """Before anything is made, the newcomer learns what to install."""
    result = tree.make("setup", failure=failure)
    assert result.returncode != 0
    assert re.search(said, result.stderr)
    assert not (tree.directory / ".venv").exists()


def test_a_missing_python_is_told(tree: Tree) -> None:
    """The name that was looked for stands in the message."""
    tree.python = Path("/no/such/python")
    result = tree.make("setup")
    assert result.returncode != 0
    assert "'/no/such/python' was not found. Install Python 3.11 or newer" in result.stderr


def test_clean_removes_what_was_made_and_nothing_else(tree: Tree) -> None:
    """Sources and other files of the user survive."""
    (tree.directory / "daemon/__pycache__").mkdir(parents=True)
    (tree.directory / "tests").mkdir()
    (tree.directory / "notes.txt").touch()
    tree.make("setup")
    assert tree.make("clean").returncode == 0
    tree.log.unlink()
    left = {path.relative_to(tree.directory).as_posix() for path in tree.directory.rglob("*")}
    assert {"Makefile", "daemon", "notes.txt"} <= left
    assert not {".venv", "daemon/__pycache__"} & left


def test_continuous_integration_is_one_executable() -> None:
    """`.ci/run` can be called as it is, and is a valid script."""
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_understands_the_whole_unit(tmp_path: Path) -> None:
    """No key is unknown, misspelt or misplaced: systemd would ignore it with no more than a line in its log."""
    unit = (ROOT / "systemd/tablefeed.service").read_text()
    assert "ExecStart=/usr/local/bin/tablefeed run\n" in unit
    (tmp_path / "tablefeed.service").write_text(unit.replace("/usr/local/bin/tablefeed run", "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "tablefeed.service")], capture_output=True, text=True, check=False
    )
    assert result.stdout + result.stderr == ""


def unit_settings() -> dict[str, str]:
    lines = (ROOT / "systemd/tablefeed.service").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_the_unit_restarts_only_what_a_restart_can_mend() -> None:
    """Usage, permission and configuration wait for the operator; an unavailable API or a full disk does not."""
    settings = unit_settings()
    assert settings["Restart"] == "on-failure"
    assert {int(code) for code in settings["RestartPreventExitStatus"].split()} == {
        Exit.USAGE,
        Exit.NO_PERMISSION,
        Exit.CONFIG,
    }


def test_the_unit_leaves_time_for_the_drain() -> None:
    """systemd kills later than the daemon itself cuts uploads off, whose default grace is 30 seconds."""
    assert int(unit_settings()["TimeoutStopSec"].removesuffix("s")) > 30


def test_unit_user_and_key_are_those_that_the_other_files_make() -> None:
    """The unit, sysusers.d and tmpfiles.d speak of the same user, directory and key."""
    settings = unit_settings()
    users = (ROOT / "systemd/sysusers.d/tablefeed.conf").read_text().split()
    assert users[:2] == ["u", settings["User"]]
    files = (ROOT / "systemd/tmpfiles.d/tablefeed.conf").read_text()
    name, _, path = settings["LoadCredential"].partition(":")
    assert name == "api-key"
    assert f"z {path} 0600 root root" in files
    assert f"d /var/lib/{settings['StateDirectory']} 0700 {settings['User']}" in files


def test_the_image_runs_as_a_fixed_ordinary_user_with_pinned_libraries() -> None:
    """A volume's owner can be set beforehand, root is never needed, and two builds hold the same versions."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER 10001:10001" in lines
    assert [line for line in lines if line.startswith(("ENTRYPOINT", "CMD"))] == [
        'ENTRYPOINT ["tablefeed"]',
        'CMD ["run"]',
    ]
    assert any("--constraint .ci/constraints.txt" in line for line in lines)


@pytest.mark.parametrize("name", ["Dockerfile", "systemd/install"])
def test_what_is_installed_has_the_extras_of_operators(name: str) -> None:
    """Image and service have all extras but the developers': neither checksums nor PostgreSQL need another step."""
    extras = PROJECT["project"]["optional-dependencies"].keys() - {"dev"}
    (installed,) = re.findall(r"'\.\[([\w,]+)\]'", (ROOT / name).read_text())
    assert {*installed.split(",")} == extras == {"crc64", "postgres"}


def test_the_image_is_built_from_all_that_it_copies() -> None:
    """What the Dockerfile copies from the tree is let through by .dockerignore, and exists."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copies = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY ")]
    sources = {source for words in copies for source in words if not words[0].startswith("--from")}
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)
