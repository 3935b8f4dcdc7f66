"""Where we listen, and to whom keys, signatures and files go: URLs from the API and from stores are not trusted."""

import asyncio
import shutil
import socket
import subprocess
import sys
import traceback
from asyncio.subprocess import PIPE, STDOUT, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from support.daemon import KEY, Site, clean_environ
from support.leaks import Search
from support.stores import a_file, certificate, grant_for, listening, serving, uploading
from tablefeed.client import ProcessMindClient
from tablefeed.errors import DeliveryError, FeedBlocked
from tablefeed.http import _proxy
from tablefeed.upload import Progress

SIGNATURE = "5ecre7" * 8
SIGNED = f"/b/k?X-Amz-Signature={SIGNATURE}&X-Amz-Expires=60"
openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes certificates, is missing")

ALONE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


def can_be_alone() -> bool:
    """Whether a process can have a network of its own, in which all ports are free."""
    try:
        return subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def listens_on(pid: int) -> set[str]:
    """The addresses on which anybody listens in the network of a process."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                words = bytes.fromhex(local.partition(":")[0])
                raw = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
                found.add(f"{socket.inet_ntop(family, raw)} {int(local.partition(':')[2], 16)}")
    return found


@asynccontextmanager
async def alone(place: Path, *arguments: str) -> AsyncIterator[Process]:
    """A tablefeed command in a network of its own, whose output and log come together."""
    command = (*ALONE, sys.executable, "-u", "-m", "tablefeed", *arguments)
    process = await create_subprocess_exec(*command, cwd=place, env=clean_environ(), stdout=PIPE, stderr=STDOUT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


@pytest.mark.skipif(not can_be_alone(), reason="this needs a network namespace (unshare --net), so that ports are free")
@pytest.mark.parametrize(
    ("arguments", "sign", "port"),
    [
        (["sandbox"], b"serves the API", "8800"),
        (["run", "--config", "tablefeed.toml"], b'"ready"', "8787"),
        (["demo"], b"answers at", None),
    ],
    ids=["sandbox", "run", "demo"],
)
async def test_nobody_but_this_machine_is_listened_to(
    tmp_path: Path, arguments: list[str], sign: bytes, port: str | None
) -> None:
    """Unless told otherwise each command binds to loopback, where every address and port is its to take."""
    site = Site(tmp_path, "http://127.0.0.1:1")
    site.feed("orders")
    config = site.config
    config.write_text(config.read_text().replace('[http]\nlisten = ""\n', ""))
    async with alone(tmp_path, *arguments) as process, asyncio.timeout(60):
        assert process.stdout is not None
        while sign not in (line := await process.stdout.readline()):
            assert line, "it ended"
        [address] = listens_on(process.pid)
    host, number = address.split()
    assert host == "127.0.0.1"
    assert port in (None, number)


def raw(answer: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """A server that reads a request and answers it with these bytes, in which `URL` stands for the request's line."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer.replace(b"URL", head.partition(b"\r\n")[0]).replace(b"HEAD", head.replace(b"\r\n", b" ")))
        await writer.drain()
        writer.close()

    return connected


BROKEN = {
    "nothing": b"",
    "no http": b"URL HEAD\r\n\r\n",
    "bad header": b"HTTP/1.1 200 OK\r\nURL\0HEAD\r\n\r\n",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: URL\r\n\r\n",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nURL HEAD\r\n",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nURL HEAD",
    "bad encoding": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nURL",
    "redirect": b"HTTP/1.1 307 URL\r\nLocation: https://u:p@[URL\r\nContent-Length: 0\r\n\r\n",
    "long header": b"HTTP/1.1 200 OK\r\nX: " + b"HEAD" * 400 + b"\r\n\r\n",
    "reason": b"HTTP/1.1 400 HEAD\r\nContent-Length: 0\r\n\r\n",
    "page": b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n<html>HEAD" + b" " * 2000,
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_no_error_of_a_broken_exchange_tells_what_was_asked(tmp_path: Path, answer: bytes) -> None:
    """Whatever a server breaks, and repeats while it does: no text, repr or traceback of the error has key or URL."""
    version = a_file(tmp_path / "a.csv")
    errors: list[BaseException] = []
    async with listening(raw(answer)) as origin, uploading(stall_timeout=2.0) as uploader:
        with pytest.raises(DeliveryError) as failed:
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
        errors.append(failed.value)
        async with ProcessMindClient(KEY, "tenant", base_url=origin) as client:
            with pytest.raises(DeliveryError) as failed:
                await client.get_datasets()
        errors.append(failed.value)
    search = Search({KEY, SIGNATURE})
    for error in errors:
        text = f"{error} {error!r} {error.args} {''.join(traceback.format_exception(error))}"
        assert search.leaks(text) == []


async def test_a_signature_that_a_store_repeats_without_its_name_is_not_told(tmp_path: Path) -> None:
    """The store's words are shown to people; what was in the URL is taken out of them, whatever stands around it."""
    version = a_file(tmp_path / "a.csv")

    async def repeat(request: web.Request) -> web.StreamResponse:
        await request.read()
        said = request.query["X-Amz-Signature"]
        return web.Response(status=400, text=f"<Error><Code>InvalidRequest</Code><Message>({said})</Message></Error>")

    async with serving(repeat) as origin, uploading() as uploader:
        with pytest.raises(FeedBlocked, match="InvalidRequest") as failed:
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert Search({SIGNATURE}).leaks(str(failed.value)) == []


class Sink:
    """A server that takes everything and keeps the headers."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        await request.read()
        return web.json_response([]) if request.method == "GET" else web.Response()


async def test_a_redirect_gets_no_header_that_it_did_not_ask_for(tmp_path: Path) -> None:
    """What one URL's signature demands is nothing to another server; there the new URL says what is to be sent."""
    version, sink = a_file(tmp_path / "a.csv"), Sink()
    async with serving(sink) as elsewhere:

        async def redirect(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.Response(status=307, headers={"Location": elsewhere + SIGNED})

        async with serving(redirect) as origin, uploading() as uploader:
            grant = grant_for(origin + SIGNED, headers={"Content-Type": "text/csv", "x-ms-blob-type": "BlockBlob"})
            await uploader.upload(tmp_path, version, grant, Progress(0))
    [headers] = sink.headers
    assert headers.keys() & {"content-type", "x-ms-blob-type", "x-api-key", "authorization", "cookie"} == set()


@openssl
async def test_a_redirect_never_leads_from_https_to_plain_http(tmp_path: Path) -> None:
    """Not to this machine either: a store has nothing to say about what listens here."""
    ca_file, tls = certificate(tmp_path)
    version, sink = a_file(tmp_path / "a.csv"), Sink()
    async with serving(sink) as plain:

        async def redirect(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.Response(status=307, headers={"Location": plain + SIGNED})

        async with serving(redirect, tls=tls) as origin, uploading(ca_file=ca_file) as uploader:
            with pytest.raises(FeedBlocked):
                await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert sink.headers == []


class Proxy:
    """A proxy that makes tunnels to one server, and keeps all that goes through it."""

    def __init__(self, server: str) -> None:
        self.heads: list[str] = []
        self.seen = bytearray()
        self._port = int(server.rpartition(":")[2])

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            await asyncio.gather(self._pass(reader, there_writer), self._pass(there_reader, writer))
        finally:
            there_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65_536):
            self.seen += chunk
            writer.write(chunk)
            await writer.drain()
        writer.close()


@pytest.fixture
def _no_remembered_proxies() -> Iterator[None]:
    _proxy.cache_clear()
    yield
    _proxy.cache_clear()


@openssl
@pytest.mark.usefixtures("_no_remembered_proxies")
async def test_a_proxy_sees_neither_key_nor_url_of_https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for a tunnel to the host; its own password goes to it alone, and all else through the tunnel."""
    ca_file, tls = certificate(tmp_path, "DNS:api.tablefeed.example")
    version, sink = a_file(tmp_path / "a.csv"), Sink()
    async with serving(sink, tls=tls) as server:
        proxy = Proxy(server)
        async with listening(proxy) as address, uploading(ca_file=ca_file) as uploader:
            monkeypatch.setenv("https_proxy", address.replace("//", "//user:w0rd-of-the-proxy@"))
            monkeypatch.delenv("no_proxy", raising=False)
            origin = "https://api.tablefeed.example"
            async with ProcessMindClient(KEY, "tenant", base_url=origin, ca_file=ca_file) as client:
                assert await client.get_datasets() == []
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert [head.splitlines()[0] for head in proxy.heads] == ["CONNECT api.tablefeed.example:443 HTTP/1.1"] * 2
    assert [headers.get("x-api-key") for headers in sink.headers] == [KEY, None]
    assert all("proxy-authorization" not in headers for headers in sink.headers)
    assert Search({KEY, SIGNATURE}).leaks("".join(proxy.heads).encode() + proxy.seen) == []
