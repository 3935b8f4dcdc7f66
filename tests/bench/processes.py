"""Programs that are measured: run to their end, with the time and the CPU they took."""

import asyncio
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from support.daemon import clean_environ

_TOLD = 2_000
"""Characters of what a broken program wrote."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a piece of work took."""

    seconds: float
    cpu: float
    """User and system seconds, of the children too."""
    output: str = ""
    """What the program wrote to standard output."""


def cpu_of_children() -> float:
    """CPU seconds of all children that have ended, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu_of(pid: int) -> float:
    """CPU seconds of all threads of a running process so far, to the tick of /proc (10 ms)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def cpu_of_tree(pid: int) -> float:
    """CPU seconds of a running process, its children, and those of them that have ended, to the tick of /proc."""
    living = 0.0
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended, and is among the others
            living += cpu_of(int(child))
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return living + sum(map(int, fields[11:15])) / _TICKS


async def run(
    *command: str | Path, environ: Mapping[str, str] | None = None, given: Sequence[str] = (), patience: float = 300.0
) -> Spent:
    """Run a program to its end; `given` are the lines of its standard input.

    No other child may end meanwhile, since its CPU would count. Raises RuntimeError when the program fails, or does not
    end within `patience` seconds, after which it is killed with all that it has started.
    """
    before, began = cpu_of_children(), perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command,
        env=clean_environ(**(environ or {})),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(patience):
            out, err = await process.communicate("".join(line + "\n" for line in given).encode())
    except TimeoutError:
        raise RuntimeError(f"{Path(command[0]).name} did not end within {patience} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    seconds = perf_counter() - began
    if process.returncode:
        told = (err or out).decode(errors="replace")[-_TOLD:]
        raise RuntimeError(f"{Path(command[0]).name} failed with {process.returncode}: {told}")
    return Spent(seconds, cpu_of_children() - before, out.decode(errors="replace"))
