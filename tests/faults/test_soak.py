"""A short soak: all faults mixed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path
from secrets import randbelow

import pytest

from support.archive import other_file_system
from support.daemon import clean_environ

SEED = os.environ.get("SOAK_SEED") or str(randbelow(10**9))


async def soak(minutes: float) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "faults.soak", "--minutes", str(minutes), "--seed", SEED),
        cwd=Path(__file__).parents[1],
        env=clean_environ(),
        stdout=PIPE,
        stderr=STDOUT,
    )


@pytest.fixture(autouse=True)
def two_file_systems(tmp_path: Path) -> None:
    with other_file_system(tmp_path):
        pass


async def test_all_faults_mixed_leave_clean_books() -> None:
    """Nothing is lost, nothing halved, no second object is made; $SOAK_SEED repeats what was printed."""
    process = await soak(0.3)
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    assert told.decode().rstrip().endswith("lost 0, halved 0, second objects 0"), told.decode()


async def test_ctrl_c_ends_a_soak_in_order() -> None:
    """What was dropped until then still arrives and is audited, and the summary is printed."""
    process = await soak(60)
    assert process.stdout is not None
    told = await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, _ = await process.communicate()
    assert process.returncode == 0, (told + rest).decode()
    assert b"rounds 1" in rest
    assert rest.rstrip().endswith(b"second objects 0")
