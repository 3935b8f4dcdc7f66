"""Single calls and uploads against servers that stop, drip, flood, or reset while more is to be sent."""

import asyncio
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from aiohttp.abc import AbstractStreamWriter

from support.patience import PATIENCE
from support.rogue import Rogue, drip, flood, hang, listening_rogue, reset_at_once
from support.stores import a_file, api_at, grant_for, uploading
from tablefeed.errors import BadAnswer, Unreachable
from tablefeed.lease import writer_unknown
from tablefeed.processmind import ProcessMindApi
from tablefeed.upload import Progress
from tablefeed.upload.body import FileBody
from tablefeed.upload.source import Source


async def presigned(api: ProcessMindApi) -> str:
    return await api.presigned_upload_url("t", dataset_id="d", filename="a.csv", size=1, modified_ms=1)


@pytest.mark.parametrize("act", [hang, drip])
async def test_an_api_that_never_comes_to_an_end_does_not_keep_the_other_calls_out(act: object) -> None:
    """Four calls at a time, all of which hang or drip: each has an end, and the fifth gets its answer."""
    async with listening_rogue(Rogue()) as server, api_at(server.origin, timeout=0.5) as api:
        server.acts = {"GET": [act] * 4}  # type: ignore[list-item]
        calls = [asyncio.create_task(presigned(api)) for _ in range(5)]
        async with asyncio.timeout(PATIENCE):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unreachable] * 4 + [str]
    assert "did not answer in time" in str(outcomes[0])


async def test_an_answer_without_end_is_read_no_further_than_an_answer_can_be() -> None:
    """The flood stops soon after the limit, and what it was is told."""
    async with listening_rogue(Rogue(api=flood)) as server, api_at(server.origin) as api:
        with pytest.raises(BadAnswer, match="where JSON was expected"):
            await presigned(api)


async def test_what_never_reached_the_store_is_told_from_what_may_have(tmp_path: Path) -> None:
    """A refused connection leaves no object behind; a connection that broke may have."""
    version = a_file(tmp_path / "a.csv")
    async with uploading() as uploader, listening_rogue(Rogue(store=reset_at_once)) as server:
        grant = grant_for(server.url(3600))
        with pytest.raises(Unreachable) as broken:
            await uploader.upload(tmp_path, version, grant, Progress(0))
        await server.down()
        with pytest.raises(Unreachable, match="refused") as refused:
            await uploader.upload(tmp_path, version, grant, Progress(0))
        with pytest.raises(Unreachable, match="not known") as unknown:
            await uploader.upload(tmp_path, version, grant_for("https://store.invalid/k"), Progress(0))
    assert broken.value.ambiguous
    assert not refused.value.ambiguous
    assert not unknown.value.ambiguous


class Listener(asyncio.Protocol):
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set()


class PlainWriter:
    """What a body needs of aiohttp's writer."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    async def write(self, chunk: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(chunk)


ANSWER = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


async def test_an_answer_that_has_come_is_read_before_the_write_that_would_lose_it(tmp_path: Path) -> None:
    """The server answered and reset the connection while the loop was busy: its reason is there to be read, until
    something is written (aiohttp issue 8191)."""
    version = a_file(tmp_path / "a.csv", 10**5)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as executor:
        transport, protocol = await loop.create_connection(Listener, *server.getsockname())
        source = Source(tmp_path, version, 2**20, writer_unknown)
        body = FileBody(source, executor)
        accepted, _ = server.accept()
        accepted.sendall(ANSWER)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        # Not one turn of the loop between the reset and the first write.
        await body.write(cast("AbstractStreamWriter", PlainWriter(transport)))
        await protocol.lost.wait()
        source.close()
    assert protocol.received == ANSWER
