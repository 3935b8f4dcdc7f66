"""The unit as systemd itself understands it, wherever its tools are."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.daemon import Site, clean_environ
from support.debian import ROOT
from support.ports import free_port
from tablefeed.errors import Exit

UNIT = ROOT / "systemd/tablefeed.service"
NEWER = ROOT / "systemd/tablefeed.service.d/10-systemd-254.conf"
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)


def systemd_version() -> int:
    """The major version of systemd here; 0 without it."""
    if shutil.which("systemctl") is None:
        return 0
    found = re.search(r"\d+", subprocess.run(["systemctl", "--version"], capture_output=True, text=True).stdout)
    return int(found[0]) if found else 0


@needs_analyze
def test_the_service_is_exposed_to_little() -> None:
    """systemd's own judgement of the sandbox is 1.5 or less; it fails with what costs most."""
    result = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", str(UNIT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, "\n".join(line for line in result.stdout.splitlines() if not line.startswith("✓"))
    assert "Overall exposure level" in result.stdout


@needs_analyze
@pytest.mark.skipif(systemd_version() < 254, reason="systemd is older than 254, which this drop-in is for")
def test_a_newer_systemd_understands_the_drop_in_too(tmp_path: Path) -> None:
    """What `make install` adds there has no key that is unknown or wrong."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/tablefeed run", "/bin/true"))
    drop_ins = tmp_path / NEWER.parent.name
    drop_ins.mkdir()
    shutil.copy(NEWER, drop_ins)
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert result.stdout + result.stderr == ""


def test_the_newer_reload_does_not_signal_twice() -> None:
    """notify-reload sends SIGHUP by itself, so the drop-in clears what does it in the unit, and keeps the check."""
    lines = NEWER.read_text().splitlines()
    assert lines.index("ExecReload=") < next(n for n, line in enumerate(lines) if "tablefeed config show" in line)
    assert "kill" not in NEWER.read_text()
    assert "kill -HUP $MAINPID" in UNIT.read_text()


@needs_analyze
def test_what_a_comment_offers_can_be_copied(tmp_path: Path) -> None:
    """The examples of the unit's comments together are a drop-in in which systemd finds no fault."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/tablefeed run", "/bin/true"))
    examples = re.findall(r"^#   (.*)$", UNIT.read_text(), re.MULTILINE)
    assert len([line for line in examples if "=" in line and not line.startswith("#")]) >= 8
    drop_in = tmp_path / NEWER.parent.name / "examples.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("\n".join(examples) + "\n")
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert result.stdout + result.stderr == ""


def settings_of(section: str) -> dict[str, str]:
    """What one section of the unit says, without what its comments offer."""
    part = UNIT.read_text().partition(f"\n[{section}]\n")[2].partition("\n[")[0]
    return dict(line.split("=", 1) for line in part.splitlines() if "=" in line and not line.startswith("#"))


def test_a_daemon_whose_postgresql_is_away_is_started_again_for_ever(tmp_path: Path) -> None:
    """It ends with a code of failure that the unit does not except, and the unit counts no starts."""
    pytest.importorskip("psycopg", reason="the driver of PostgreSQL is not installed here")
    place = Site(tmp_path, "http://127.0.0.1:9")
    place.feed("orders")
    place.sections["ledger"] = {"url": f"postgresql+psycopg://tablefeed:secret@127.0.0.1:{free_port()}/tablefeed"}
    ended = subprocess.run(
        [sys.executable, "-m", "tablefeed", "run", "--config", str(place.config)],
        env=clean_environ(), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == Exit.UNAVAILABLE, ended.stderr
    assert "secret" not in ended.stdout + ended.stderr
    service = settings_of("Service")
    assert service["Restart"] == "on-failure"
    assert str(ended.returncode) not in service["RestartPreventExitStatus"].split()
    assert settings_of("Unit")["StartLimitIntervalSec"] == "0"
    assert "StartLimit" not in NEWER.read_text()
    assert "RestartPreventExitStatus" not in NEWER.read_text()
