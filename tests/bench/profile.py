"""Where the time goes: py-spy's samples of who holds the GIL, and what the kernel counts for each thread.

Recorded in a run of its own after those that are measured, since it takes time itself.
"""

import asyncio
import re
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from bench.model import Part, Plan, Profile, Scale

RATE = 250
"""Samples a second."""
_LEAST = 0.01
"""Parts with less of the samples are told together."""
_LONGEST = 600
"""Seconds."""
_OWN = re.compile(r"\((?:.*/)?tablefeed/(.+?)(?:\.py)?:\d+\)$")
_FOREIGN = re.compile(r"\((?:.*/)?([^/()]+)/[^()]*:\d+\)$|\(([^/()]+?)(?:\.py)?:\d+\)$")
_START = ("importlib", "runpy")


def spy_binary() -> str | None:
    """Where the development dependency py-spy has put it, else the system's; None when there is none."""
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


@dataclass(frozen=True, slots=True)
class Use:
    """What the kernel has counted for a thread."""

    cpu: float
    """Seconds."""
    switches: int
    """How often it stopped running, of its own accord or not."""


def uses(pid: int) -> dict[int, Use]:
    """Of each thread of a process that still is, by its id; nothing when the process has ended."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("[0-9]*"):
        try:
            ran, _, _ = (task / "schedstat").read_text().split()
            status = (task / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        switches = sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)
        found[int(task.name)] = Use(int(ran) / 1e9, switches)
    return found


class Spy:
    """Looks at one process; called with its id, it gives the context in which it does so."""

    def __init__(self, plan: Plan) -> None:
        self.is_wanted = plan.scale is Scale.FULL
        """A short run shows by one row alone that all of this works."""
        self._out = plan.scratch / "profile.raw"
        self._before: dict[int, Use] = {}
        self._after: dict[int, Use] = {}
        self._seconds = 0.0
        self._samples: list[tuple[int, list[str], int]] = []
        self._missing = ""

    @asynccontextmanager
    async def __call__(self, pid: int) -> AsyncIterator[None]:
        """Look at a process until the end of this, which the process may have reached before."""
        binary = spy_binary()
        if binary is None:
            self._missing = "py-spy is missing: pip install py-spy"
            async with self._counted(pid):
                yield
            return
        spy = await asyncio.create_subprocess_exec(
            *(binary, "record", "--nonblocking", "--gil", "--threads", "--format", "raw", "--rate", str(RATE)),
            *("--duration", str(_LONGEST), "--pid", str(pid), "--output", str(self._out)),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            start_new_session=True,
        )
        try:
            async with self._counted(pid):
                yield
        finally:
            if spy.returncode is None:
                spy.send_signal(signal.SIGINT)
            _, err = await spy.communicate()
        if self._out.exists():
            self._samples = list(parsed(self._out.read_text()))
            self._out.unlink()
        else:
            self._missing = f"py-spy could not record: {err.decode(errors='replace').strip()[-200:]}"

    @asynccontextmanager
    async def _counted(self, pid: int) -> AsyncIterator[None]:
        self._before, began = uses(pid), perf_counter()
        yield
        self._after, self._seconds = uses(pid), perf_counter() - began

    def profile(self, files: int) -> Profile | None:
        """What it has seen, `files` were delivered meanwhile; None where it has not looked."""
        if not self._seconds:
            return None
        nobody = Use(0.0, 0)
        names = {thread: kind(frames[0]) for thread, frames, _ in self._samples}
        cpu: Counter[str] = Counter()
        switches = 0
        for thread, use in self._after.items():
            before = self._before.get(thread, nobody)
            cpu[names.get(thread, "others")] += round((use.cpu - before.cpu) / files * 1e6)
            switches += use.switches - before.switches
        held = sum(count for _, _, count in self._samples) / (RATE * self._seconds)
        threads = tuple((name, float(spent)) for name, spent in cpu.most_common() if spent > 0)
        return Profile(files / self._seconds, min(held, 1.0), switches / files, threads, self._parts(), self._missing)

    def _parts(self) -> tuple[Part, ...]:
        counts: Counter[tuple[str, str, str]] = Counter()
        for _, frames, count in self._samples:
            counts[(kind(frames[0]), *whose(frames))] += count
        whole = counts.total()
        large = [(key, count) for key, count in counts.most_common() if count >= _LEAST * whole]
        parts = [Part(*key, count / whole) for key, count in large]
        rest = whole - sum(count for _, count in large)
        return (*parts, Part("others", "", "", rest / whole)) if rest else tuple(parts)


def kind(thread: str) -> str:
    """What a thread is for, by its name: those of a pool are told together, and those of all feeds."""
    name = re.sub(r"^thread \(\w+\)(: )?", "", thread) or "MainThread"
    return "event loop" if name == "MainThread" else re.split(r"[-_ ]\d|:", name)[0]


def whose(frames: Iterable[str]) -> tuple[str, str]:
    """Which module of tablefeed was at work, and in which library; empty where it was none's."""
    told = list(frames)[1:]
    if any(part in frame for frame in told for part in _START):
        told = told if not any("Runner.run" in frame for frame in told) else told[_loop(told) :]
    own = next((match[1] for frame in reversed(told) if (match := _OWN.search(frame))), "")
    last = told[-1] if told else ""
    foreign = None if _OWN.search(last) else _FOREIGN.search(last)
    return own, (foreign[1] or foreign[2] or "") if foreign else ""


def _loop(frames: list[str]) -> int:
    return next(place for place, frame in enumerate(frames) if "Runner.run" in frame)


def parsed(text: str) -> Iterator[tuple[int, list[str], int]]:
    """Thread, frames from the outermost on with the thread's name before them, and samples.

    What py-spy read while the process changed it, without holding that, may be no stack, and is left out.
    """
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        thread = re.match(r"thread \((\w+)\)", frames[0])
        if thread and count.isdecimal():
            yield int(thread[1], 0), frames, int(count)
