"""Pieces of work in processes of their own, so that what they take can be told apart."""

import asyncio
import json
import resource
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.delivery import Beside, nothing
from support.daemon import clean_environ

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Took:
    """What a piece of work took, in seconds."""

    wall: float
    cpu: float


async def work(module: str, *arguments: str, beside: Beside = nothing) -> dict[str, Any]:
    """What a module of the benchmark prints as JSON when it is run with these arguments.

    `beside` goes on meanwhile; it is given the process's id. Raises RuntimeError when it fails.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), cwd=TESTS, env=clean_environ(), stdout=PIPE
    )
    async with beside(process.pid):
        out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} ended with {process.returncode}")
    found: dict[str, Any] = json.loads(out)
    return found


async def command(*words: str) -> Took:
    """What a command takes whose output nobody reads. Raises RuntimeError when it fails."""
    began, before = time.perf_counter(), _children()
    process = await asyncio.create_subprocess_exec(*words, env=clean_environ(), stdin=DEVNULL, stdout=DEVNULL)
    if await process.wait():
        raise RuntimeError(f"{words[0]} ended with {process.returncode}")
    return Took(time.perf_counter() - began, _children() - before)


def _children() -> float:
    """CPU seconds of all processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
