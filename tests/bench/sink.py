"""API and store in one, for what nginx cannot do: tell when a PUT begins, hold bodies until many are under way, or
answer nothing at all. A process of its own, so that its work is nobody else's.

    python -m bench.sink [--hold] [--together N]

It prints one line for its origin, and one for the begin of each PUT: CLOCK_MONOTONIC in nanoseconds.
"""

import argparse
import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop

from support.daemon import clean_environ

TESTS = Path(__file__).parents[1]
_BUFFER = 2**20
_EXPIRES = 2_000_000_000


@dataclass
class House:
    """What the connections share."""

    hold: bool
    together: int
    origin: str = ""
    grants: int = 0
    held: list["Connection"] = field(default_factory=list)
    """PUTs whose body is not read before enough of them have begun."""

    def url(self) -> bytes:
        """A new presigned URL, in the API's words."""
        self.grants += 1
        url = f"{self.origin}/object/{self.grants}?Expires={_EXPIRES}&Signature=s1g"
        return json.dumps({"PreSignedUploadUrl": url}).encode()

    def begun(self, connection: "Connection") -> None:
        """A PUT has begun; its body waits until as many others have."""
        if self.together <= 1:
            return
        self.held.append(connection)
        connection.transport.pause_reading()
        if len(self.held) >= self.together:
            for each in self.held:
                each.transport.resume_reading()
            self.together = 0


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1, as far as the daemon speaks it. Bodies are read and forgotten."""

    transport: asyncio.Transport

    def __init__(self, house: House, buffer: bytearray) -> None:
        self._house = house
        self._buffer = buffer
        """Of all connections: what stands in it is used before the next one reads."""
        self._head = b""
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._left >= nbytes:
            self._took(nbytes)
            return
        data = bytes(memoryview(self._buffer)[:nbytes])
        while data:
            if self._left:
                body = min(self._left, len(data))
                data = data[body:]
                self._took(body)
                continue
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return
            self._head = b""
            self._request(head)

    def _took(self, count: int) -> None:
        self._left -= count
        if not self._left:
            self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def _request(self, head: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(b":") for each in lines)}
        if not line.startswith(b"PUT "):
            if not self._house.hold:
                self._answer(self._house.url())
            return
        print(time.monotonic_ns(), flush=True)
        if b"expect" in headers:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._left = int(headers[b"content-length"])
        self._house.begun(self)


async def serve(house: House) -> None:
    """Serve until standard input ends, as it does with whoever started this."""
    loop = asyncio.get_running_loop()
    buffer = bytearray(_BUFFER)
    server = await loop.create_server(lambda: Connection(house, buffer), "127.0.0.1", 0, backlog=1024)
    house.origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(house.origin, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


class Sink:
    """A running sink, seen from the benchmark."""

    def __init__(self, origin: str, lines: asyncio.StreamReader) -> None:
        self.origin = origin
        self._lines = lines

    async def put_begun(self, patience: float = 60.0) -> float:
        """When the next PUT began, on the clock of `time.monotonic`."""
        async with asyncio.timeout(patience):
            return int(await self._lines.readline()) / 1e9


@asynccontextmanager
async def sinking(*options: str) -> AsyncIterator[Sink]:
    """A sink with these options while the block runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.sink", *options),
        cwd=TESTS,
        env=clean_environ(),
        stdin=PIPE,
        stdout=PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Sink((await process.stdout.readline()).decode().strip(), process.stdout)
    finally:
        process.stdin.close()
        await process.wait()


def main() -> None:
    """Run a sink with the options of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hold", action="store_true", help="the API never answers")
    parser.add_argument("--together", type=int, default=0, help="bodies are read once so many PUTs have begun")
    options = parser.parse_args()
    uvloop.run(serve(House(options.hold, options.together)))


if __name__ == "__main__":
    main()
