"""What rows 3 and 4 share: the CPU that one large file takes, beside curl, which does nothing else."""

import asyncio
import base64
import hashlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from awscrt.checksums import crc64nvme

from bench.delivery import Measured, daemon, site
from bench.model import Bound, Claim, Plan, Row, Series, ratios
from bench.processes import run
from bench.servers import NGINX_REMEDY, Nginx, nginx, nginx_binary
from bench.turns import in_turn
from support.daemon import Site, rename_in

PEERS = Path(__file__).parents[1] / "peers"
KEY = {"API_KEY": "k3y-of-the-benchmark"}
UNVERIFIED, BY_MD5, BY_CRC = (
    "tablefeed, nothing to verify with",
    "tablefeed, verified by MD5",
    "tablefeed, verified by CRC-64/NVME",
)
CURL, SCRIPT, DIGEST = "curl -T", "requests script", "MD5 alone"
NOTES = (
    (
        "User and system time of the client. tablefeed: of the running daemon, from before the file is dropped to when "
        "it lies in the archive, so with finding, queueing, the URL and the archive, but without the start of the "
        "process. One small file has gone to the server before, so that it knows what the server's answers hold. curl "
        "and the script: of the whole process."
    ),
    (
        f"`{BY_CRC}`: the server tells the checksum that S3 tells of every object. `{BY_MD5}`: it names the MD5 of the "
        f"file as its ETag. `{UNVERIFIED}`: it tells nothing."
    ),
    f"`{DIGEST}`: reading the file and computing its MD5, in Python; what verification by MD5 cannot do without.",
    "The server writes the file to the disk; what that takes is not counted.",
)
_BLOCK = 2**20
_SMALL = 2**16
_UNIT = "CPU s/GiB"


async def cpu_per_gib(plan: Plan, number: int, *, tls: bool, unverified_limit: float, verified_limit: float) -> Row:
    """One row: CPU seconds per GiB of each contender, plain or with TLS."""
    over = "TLS" if tls else "plain HTTP"
    size = plan.pick(2 * 2**30, 16 * 2**20)
    title = f"CPU seconds per GiB, one file of {size / 2**30:.2g} GiB, nginx, {over}"
    if nginx_binary() is None or shutil.which("curl") is None:
        missing = NGINX_REMEDY if nginx_binary() is None else "curl is missing: apt-get install curl"
        return Row(number, title, (), notes=(f"Left out: {missing}.",))
    scratch = plan.scratch / f"stream-{number}"
    scratch.mkdir()
    file = scratch / "export.csv"
    small = os.urandom(_SMALL)
    of_large = await asyncio.to_thread(_write, file, size)
    of_small = Told().of(small)
    etags = {"ETag": {size: of_large.etag, _SMALL: of_small.etag}}
    checksums = {"x-amz-checksum-crc64nvme": {size: of_large.checksum, _SMALL: of_small.checksum}}
    async with (
        nginx(scratch / "silent", tls=tls) as silent,
        nginx(scratch / "etags", tls=tls, told=etags) as naming,
        nginx(scratch / "checksums", tls=tls, told=checksums) as summing,
        _delivering(scratch / "unverified", silent, small) as unverified,
        _delivering(scratch / "by-md5", naming, small) as by_md5,
        _delivering(scratch / "by-crc", summing, small) as by_crc,
    ):
        contenders = {
            UNVERIFIED: lambda: unverified.cpu_of(file),
            BY_CRC: lambda: by_crc.cpu_of(file),
            BY_MD5: lambda: by_md5.cpu_of(file),
            CURL: lambda: _curl(silent, file),
            SCRIPT: lambda: _script(silent, file),
            DIGEST: lambda: _digest(file),
        }
        taken = await in_turn(number, plan, contenders)
    shutil.rmtree(scratch)
    series = {name: Series(name, _UNIT, tuple(cpu / size * 2**30 for cpu in runs)) for name, runs in taken.items()}
    return Row(
        number,
        title,
        tuple(series.values()),
        tuple(
            Claim(f"{name} / {CURL}", "", ratios(series[name], series[CURL]), Bound.AT_MOST, limit)
            for name, limit in ((UNVERIFIED, unverified_limit), (BY_CRC, verified_limit), (BY_MD5, verified_limit))
        ),
        NOTES,
    )


class _Delivering:
    """A running daemon with one feed."""

    def __init__(self, place: Site, running: Measured, server: Nginx, directory: Path) -> None:
        self._place = place
        self._running = running
        self._server = server
        self._directory = directory
        self._delivered = 0

    async def delivered(self, drop: Callable[[Path], None]) -> None:
        """Wait until what `drop` puts at a path is in the archive, and remove it everywhere."""
        self._delivered += 1
        drop(self._directory / f"export-{self._delivered}.csv")
        await self._running.until("file_archived", self._delivered)
        shutil.rmtree(self._directory / "archive")
        if self._server.clear() != 1:
            raise RuntimeError("the file has not arrived")

    async def cpu_of(self, file: Path) -> float:
        """CPU seconds that the daemon takes for it."""
        before = self._running.cpu
        await self.delivered(lambda path: os.link(file, path))
        return self._running.cpu - before


@asynccontextmanager
async def _delivering(root: Path, server: Nginx, small: bytes) -> AsyncIterator[_Delivering]:
    """A daemon that has delivered one small file."""
    place = site(root, server.base_url, ca_file=server.ca_file)
    directory = place.feed("orders", dataset_id="dataset-1", settle="100ms")
    async with daemon(place) as running:
        await running.until("ready")
        delivering = _Delivering(place, running, server, directory)
        await delivering.delivered(lambda path: _rename_in(path, small))
        yield delivering


async def _curl(server: Nginx, file: Path) -> float:
    trust = () if server.ca_file is None else ("--cacert", server.ca_file)
    url = f"{server.origin}/sink/{file.name}"
    spent = await run("curl", "--silent", "--show-error", "--fail", *trust, "--upload-file", file, url)
    server.clear()
    return spent.cpu


async def _script(server: Nginx, file: Path) -> float:
    trust = {} if server.ca_file is None else {"REQUESTS_CA_BUNDLE": str(server.ca_file)}
    spent = await run(sys.executable, PEERS / "requests_script.py", server.base_url, file, environ=KEY | trust)
    server.clear()
    return spent.cpu


async def _digest(file: Path) -> float:
    program = "import hashlib, sys; hashlib.file_digest(open(sys.argv[1], 'rb'), 'md5')"
    return (await run(sys.executable, "-c", program, file)).cpu


def _rename_in(path: Path, content: bytes) -> None:
    rename_in(path.parent, path.name, content)


class Told:
    """What stores tell of bytes."""

    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc = 0

    def of(self, more: bytes) -> Self:
        """Take more bytes into account."""
        self._md5.update(more)
        self._crc = crc64nvme(more, self._crc)
        return self

    @property
    def etag(self) -> str:
        """The ETag of a plain PUT."""
        return f'"{self._md5.hexdigest()}"'

    @property
    def checksum(self) -> str:
        """As S3 writes it."""
        return base64.b64encode(self._crc.to_bytes(8, "big")).decode()


def _write(path: Path, size: int) -> Told:
    """Write random blocks, all the same; returns what stores tell of the whole."""
    block, told = os.urandom(_BLOCK), Told()
    with path.open("wb") as file:
        for _ in range(size // _BLOCK):
            file.write(block)
            told.of(block)
    return told
