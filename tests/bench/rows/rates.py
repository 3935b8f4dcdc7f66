"""Row 1: small files per second, with everything on, beside what people would use instead."""

import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench.delivery import Beside, deliver, make_files, nothing, old_enough, settle, site
from bench.model import Bound, Claim, Plan, Row, Series, ratios
from bench.places import light_directory
from bench.processes import Spent, run
from bench.profile import Spy
from bench.servers import NGINX_REMEDY, Nginx, nginx, nginx_binary
from bench.turns import in_turn

NUMBERS = (1,)
TITLE = "Files per second, 10 KiB each, nginx"
SIZE = 10 * 2**10
PEERS = Path(__file__).parents[1] / "peers"
KEY = {"API_KEY": "k3y-of-the-benchmark"}

OURS, PINNED = "tablefeed", "tablefeed, kept to one core"
EIGHT, ALONE = "two curl calls, xargs -P8", "two curl calls"
SCRIPT, BARE = "requests script", "bare aiohttp loop"
EIGHT_LIMIT, BARE_LIMIT = 15.0, 0.4


async def measure(plan: Plan) -> list[Row]:
    """Files per second of each contender."""
    if nginx_binary() is None or shutil.which("curl") is None:
        missing = NGINX_REMEDY if nginx_binary() is None else "curl is missing: apt-get install curl"
        return [Row(1, TITLE, (), notes=(f"Left out: {missing}.",))]
    files = make_files(plan.scratch / "rates", plan.pick(5_000, 40), SIZE)
    with light_directory(plan) as light:
        async with nginx(light / "nginx", tls=False) as server:
            contenders = _contenders(plan, server, files)
            taken = await in_turn(1, plan, contenders)
            spy = Spy(plan)
            await _ours(plan, server, len(files), beside=spy)
    shutil.rmtree(plan.scratch / "rates")
    rates = {name: Series(name, "files/s", tuple(sample.rate for sample in samples)) for name, samples in taken.items()}
    efforts = tuple(
        Series(name, "CPU ms/file", tuple(sample.effort for sample in samples)) for name, samples in taken.items()
    )
    return [
        Row(
            1,
            f"Files per second, {len(files):,} × 10 KiB, everything on, nginx",
            (*rates.values(), *efforts),
            (
                Claim(f"{OURS} / {EIGHT}", "", ratios(rates[OURS], rates[EIGHT]), Bound.AT_LEAST, EIGHT_LIMIT),
                Claim(f"{OURS} / {BARE}", "", ratios(rates[OURS], rates[BARE]), Bound.AT_LEAST, BARE_LIMIT),
            ),
            _notes(plan),
            spy.profile(len(files)),
        )
    ]


def _notes(plan: Plan) -> tuple[str, ...]:
    return (
        (
            "tablefeed: all settings at their default but for the addresses; one feed, in which the files lie, whole "
            "for longer than `settle`, when the daemon starts. Measured from its event `started`, before its first "
            "look at the directory, to the last `file_archived`; the start of the process is left out."
        ),
        (
            f"`{PINNED}`: run by `taskset`, as `CPUAffinity=` of systemd does it. The threads of a Python process take "
            "turns, and a turn costs less where it does not go from core to core."
        ),
        (
            "The bare loop (uvloop, 32 at a time) and the script tell their own time, without the start of Python; the "
            "curl calls are measured from outside, since their starts are what they consist of. CPU is always that of "
            "the whole process, but for the daemon's start."
        ),
        (
            "The peers keep no ledger, compute no MD5, archive nothing and try nothing again. The slow ones send fewer "
            f"of the same files: {_share(plan, 400)} at eight a time (ten for each start of bash), {_share(plan, 150)} "
            f"alone, {_share(plan, 1_000):,} by the script."
        ),
        (
            "Why it is missed, see the profile: the bare loop has one thread; the daemon's threads hand the GIL over "
            "for each system call on the way from the drop directory over the ledger to the archive, and while one "
            "waits for another that woke up on the other core, neither works. Nearly half of what the event loop "
            "itself does is aiohttp's work."
        ),
        (
            "nginx answers for the API and takes the files. It works on the same cores and keeps what it takes in "
            "memory: a real server is another machine, which does not share the disk that the ledger waits for."
        ),
    )


def _share(plan: Plan, wanted: int) -> int:
    return plan.pick(wanted, 16)


@dataclass(frozen=True, slots=True)
class _Sample:
    rate: float
    """Files per second."""
    effort: float
    """CPU milliseconds per file."""


async def _ours(plan: Plan, server: Nginx, count: int, *under: str, beside: Beside = nothing) -> _Sample:
    place = site(plan.scratch / "rates-ours", server.base_url)
    directory = place.feed("orders", dataset_id="dataset-1", settle=f"{settle(plan)}s")
    make_files(directory, count, SIZE)
    await old_enough(directory, settle(plan))
    spent = await deliver(place, count, *under, beside=beside)
    shutil.rmtree(place.root)
    return _sample(spent, server, count)


def _contenders(plan: Plan, server: Nginx, files: list[Path]) -> dict[str, Callable[[], Awaitable[_Sample]]]:
    names = [str(path) for path in files]
    script = str(PEERS / "two_curls.sh")
    python = (sys.executable, str(PEERS / "requests_script.py"), server.base_url)
    loop = (sys.executable, str(PEERS / "bare_aiohttp.py"), server.base_url, "32", str(files[0].parent))

    async def ours() -> _Sample:
        return await _ours(plan, server, len(files))

    async def pinned() -> _Sample:
        return await _ours(plan, server, len(files), "taskset", "--cpu-list", str(min(os.sched_getaffinity(0))))

    async def eight() -> _Sample:
        some = names[: _share(plan, 400)]
        spent = await run("xargs", "-d\\n", "-P8", "-n10", script, server.base_url, environ=KEY, given=some)
        return _sample(spent, server, len(some))

    async def alone() -> _Sample:
        some = names[: _share(plan, 150)]
        return _sample(await run(script, server.base_url, *some, environ=KEY), server, len(some))

    async def requests() -> _Sample:
        some = names[: _share(plan, 1_000)]
        return _sample(_by_itself(await run(*python, *some, environ=KEY)), server, len(some))

    async def bare() -> _Sample:
        return _sample(_by_itself(await run(*loop, environ=KEY)), server, len(files))

    return {OURS: ours, PINNED: pinned, EIGHT: eight, ALONE: alone, SCRIPT: requests, BARE: bare}


def _by_itself(spent: Spent) -> Spent:
    """With the time that the program has measured."""
    return replace(spent, seconds=float(spent.output))


def _sample(spent: Spent, server: Nginx, count: int) -> _Sample:
    """Once all `count` files are known to have arrived."""
    arrived = server.clear()
    if arrived != count:
        raise RuntimeError(f"{arrived} of {count} files have arrived")
    return _Sample(count / spent.seconds, spent.cpu / count * 1e3)
