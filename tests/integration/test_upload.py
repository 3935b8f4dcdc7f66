import asyncio
import base64
import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest
from aiohttp import web
from awscrt.checksums import crc64nvme

from support.patience import PATIENCE
from support.stores import a_file, certificate, grant_for, listening, serving, uploading
from tablefeed.errors import (
    BadAnswer,
    Busy,
    Damaged,
    DiskTrouble,
    Fatal,
    FeedBlocked,
    FileRefused,
    GrantExpired,
    SignatureRefused,
    SourceChanged,
    Stalled,
    Unreachable,
)
from tablefeed.http import _proxy, tls_context
from tablefeed.upload import Digest, Progress, grant_headers, put

SIGNED = "/bucket/key?X-Amz-SignedHeaders=host&X-Amz-Signature=5ecre7"
BIG = 3 * 2**20 + 17


class Sink:
    """A store that keeps what it gets and answers with its MD5."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.targets: list[str] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        self.targets.append(request.raw_path)
        body = await request.read()
        self.bodies.append(body)
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        return web.Response(headers={"ETag": f'"{etag}"', "x-amz-request-id": "r-1"})


@pytest.mark.parametrize("size", [1, 1000, 2**20, 2**20 + 1, BIG])
async def test_the_bytes_arrive_and_the_receipt_proves_it(tmp_path: Path, size: int) -> None:
    """One PUT with its length, the body byte for byte, and a receipt with MD5, ETag, status and request id."""
    version = a_file(tmp_path / "a.csv", size)
    sink = Sink()
    async with serving(sink) as origin, uploading() as uploader:
        progress = Progress(size)
        receipt = await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), progress)
    content = (tmp_path / "a.csv").read_bytes()
    assert sink.bodies == [content]
    assert receipt.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert (receipt.size, receipt.status, receipt.verified, receipt.request_id) == (size, 200, True, "r-1")
    assert receipt.started_at <= receipt.finished_at


async def test_how_long_the_store_takes_is_told_without_what_the_body_takes(tmp_path: Path) -> None:
    """From the last byte to the head of the answer; that the body may come is told once, and before it goes."""
    version = a_file(tmp_path / "a.csv", BIG)
    waited = 0.0

    async def answer_late(request: web.Request) -> web.StreamResponse:
        await request.read()
        await asyncio.sleep(0.1)
        return web.Response()

    async def admit(wanted: int) -> int:
        nonlocal waited
        assert came == [0]
        await asyncio.sleep(0.05)
        waited += 0.05
        return wanted

    came: list[int] = []
    progress = Progress(BIG)
    progress.comes = lambda: came.append(progress.sent())
    async with serving(answer_late) as origin, uploading(admit=admit) as uploader:
        began = asyncio.get_running_loop().time()
        await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), progress)
        took = asyncio.get_running_loop().time() - began
    assert progress.latency is not None
    assert 0.099 <= progress.latency <= took - waited + 0.01
    assert came == [0]


async def test_nothing_is_sent_but_what_was_signed(tmp_path: Path) -> None:
    """The length is set, and there is no Content-Type, no x-amz header, no key and no cookie."""
    version = a_file(tmp_path / "a.csv")
    sink = Sink()
    async with serving(sink) as origin, uploading() as uploader:
        await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    [headers] = sink.headers
    assert headers["Content-Length"] == "1000"
    assert set(headers) <= {"Host", "Content-Length", "Accept", "Accept-Encoding", "User-Agent"}


async def test_headers_that_were_signed_are_sent(tmp_path: Path) -> None:
    """A signed Content-Type goes out with the type of the file's name."""
    url = "https://s/k?X-Amz-SignedHeaders=content-type%3Bhost"
    assert grant_headers(url, "a.csv") == {"Content-Type": "text/csv"}
    with pytest.raises(FeedBlocked, match="x-amz-acl"):
        grant_headers("https://s/k?X-Amz-SignedHeaders=host%3Bx-amz-acl", "a.csv")
    version = a_file(tmp_path / "a.csv")
    sink = Sink()
    async with serving(sink) as origin, uploading() as uploader:
        grant = grant_for(origin + SIGNED, headers={"Content-Type": "text/csv"})
        await uploader.upload(tmp_path, version, grant, Progress(0))
    assert sink.headers[0]["Content-Type"] == "text/csv"


async def test_the_url_is_used_as_it_was_spelt(tmp_path: Path) -> None:
    """A signature covers the very spelling, so that nothing is quoted anew."""
    version = a_file(tmp_path / "a.csv")
    sink = Sink()
    odd = "/b/a%2Fb%7Ec%20d+e?X-Amz-Signature=a%2Fb%7E&x=%c3%A9"
    async with serving(sink) as origin, uploading() as uploader:
        await uploader.upload(tmp_path, version, grant_for(origin + odd), Progress(0))
    assert sink.targets == [odd]


async def test_a_lost_reply_makes_no_second_request(tmp_path: Path) -> None:
    """Attempts are counted by us: aiohttp's own repetition of a PUT does not happen, also on a used connection."""
    version = a_file(tmp_path / "a.csv")
    requests = 0

    async def hang_up(request: web.Request) -> web.StreamResponse:
        nonlocal requests
        requests += 1
        await request.read()
        if requests > 1 and request.transport is not None:
            request.transport.close()
        return web.Response()

    async with serving(hang_up) as origin, uploading() as uploader:
        await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
        with pytest.raises(Unreachable):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert requests == 2


async def test_an_etag_that_is_another_md5_is_damage(tmp_path: Path) -> None:
    """The store says that it holds other bytes than we sent."""
    version = a_file(tmp_path / "a.csv")

    async def wrong(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(headers={"ETag": '"' + "0" * 32 + '"'})

    async with serving(wrong) as origin, uploading() as uploader:
        with pytest.raises(Damaged):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ETag": '"d41d8cd98f00b204e9800998ecf8427e-2"'},
        {"ETag": "0x8DC"},
        {"ETag": '"' + "0" * 32 + '"', "x-amz-server-side-encryption": "aws:kms"},
        {"ETag": '"' + "0" * 32 + '"', "x-amz-server-side-encryption-customer-algorithm": "AES256"},
    ],
)
async def test_an_etag_that_is_no_md5_proves_nothing_and_breaks_nothing(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    """Multipart, KMS and customer keys have ETags of their own."""
    version = a_file(tmp_path / "a.csv")

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=201, headers=headers)

    async with serving(answer) as origin, uploading() as uploader:
        receipt = await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert not receipt.verified
    assert receipt.status == 201


NOT_THIS = '"' + "0" * 32 + '"'
CONTENT = random.Random(1000).randbytes(1000)
CONTENT_MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
CONTENT_CRC = base64.b64encode(crc64nvme(CONTENT).to_bytes(8, "big")).decode()


@pytest.mark.parametrize(
    ("answers", "md5s", "verified"),
    [
        ([{}, {}], [True, False], [False, False]),
        ([{"ETag": f'"{CONTENT_MD5}"'}] * 2, [True, True], [True, True]),
        ([{}, {"ETag": f'"{CONTENT_MD5}"'}, {"ETag": f'"{CONTENT_MD5}"'}], [True, False, True], [False, False, True]),
        ([{"x-amz-checksum-crc64nvme": CONTENT_CRC}] * 2, [True, False], [False, True]),
        ([{"x-amz-checksum-crc64nvme": CONTENT_CRC, "ETag": f'"{CONTENT_MD5}"'}] * 2, [True, False], [True, True]),
        (
            [{"x-amz-checksum-crc64nvme": CONTENT_CRC, "x-amz-checksum-type": "COMPOSITE"}] * 2,
            [True, False],
            [False] * 2,
        ),
        (
            [{"x-amz-checksum-crc64nvme": CONTENT_CRC, "ETag": NOT_THIS, "x-amz-server-side-encryption": "aws:kms"}]
            * 2,
            [True, False],
            [False, True],
        ),
    ],
)
async def test_what_a_store_tells_decides_what_is_computed_for_its_next_file(
    tmp_path: Path, answers: list[dict[str, str]], md5s: list[bool], verified: list[bool]
) -> None:
    """The first file has its MD5; after that it is left out where nothing could be compared with it, or a CRC tells."""
    version = a_file(tmp_path / "a.csv")
    left = iter(answers)

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(headers=next(left))

    async with serving(answer) as origin, uploading() as uploader:
        receipts = [await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0)) for _ in answers]
    assert [receipt.md5 for receipt in receipts] == [CONTENT_MD5 if has else None for has in md5s]
    assert [receipt.verified for receipt in receipts] == verified


async def test_a_crc_that_is_another_is_damage(tmp_path: Path) -> None:
    """As with the MD5, over more than one chunk; and an MD5 that the feed wants is computed beside it."""
    version = a_file(tmp_path / "a.csv", 3 * 2**20 + 1)
    content = (tmp_path / "a.csv").read_bytes()
    right = base64.b64encode(crc64nvme(content).to_bytes(8, "big")).decode()
    answers = iter([right, right, "AAAAAAAAAAA="])

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(headers={"x-amz-checksum-crc64nvme": next(answers)})

    async with serving(answer) as origin, uploading() as uploader:
        grant = grant_for(origin + SIGNED)
        await uploader.upload(tmp_path, version, grant, Progress(0))
        receipt = await uploader.upload(tmp_path, version, grant, Progress(0), (Digest.MD5,))
        assert (receipt.verified, receipt.md5) == (True, hashlib.md5(content, usedforsecurity=False).hexdigest())
        with pytest.raises(Damaged, match="CRC-64/NVME"):
            await uploader.upload(tmp_path, version, grant, Progress(0))


async def test_a_large_body_is_not_sent_to_a_store_that_refuses_it(tmp_path: Path) -> None:
    """`Expect: 100-continue`: the refusal comes before the transfer, and its reason is known."""
    version = a_file(tmp_path / "a.csv", BIG)
    body = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    received = 0

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=403, text=body)

    async def count(request: web.Request) -> web.StreamResponse:
        nonlocal received
        received += len(await request.read())
        return web.Response()

    async with serving(count, expect=refuse) as origin, uploading() as uploader:
        progress = Progress(0)
        with pytest.raises(GrantExpired, match="Request has expired"):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), progress)
        assert progress.sent() == 0
    assert received == 0


async def test_a_host_that_never_says_continue_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded, the body goes out, and the next large body does not ask."""
    monkeypatch.setattr(put, "CONTINUE_TIMEOUT", 0.3)
    version = a_file(tmp_path / "a.csv", BIG)
    sink = Sink()

    async def silent(request: web.Request) -> web.StreamResponse | None:
        return None

    async with serving(sink, expect=silent) as origin, uploading() as uploader:
        for _ in range(2):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    asked = ["Expect" in headers for headers in sink.headers]
    assert sink.bodies[-1] == sink.bodies[-2] == (tmp_path / "a.csv").read_bytes()
    assert asked[-2:] == [False, False]


async def test_a_store_that_takes_nothing_is_given_up_after_the_stall_timeout(tmp_path: Path) -> None:
    """A connection on which nothing moves does not hold its slot for ever, at whatever point it stops."""
    version = a_file(tmp_path / "a.csv", 30 * 2**20)
    hung = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        hung.set()

    async with listening(hang) as origin, uploading(stall_timeout=0.5) as uploader:
        with pytest.raises(Stalled):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
        assert hung.is_set()


async def test_a_store_that_never_answers_is_given_up(tmp_path: Path) -> None:
    """The wait for the answer counts as a stall too."""
    version = a_file(tmp_path / "a.csv")

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10**6)

    async with listening(silent) as origin, uploading(stall_timeout=0.4) as uploader:
        with pytest.raises(Stalled):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))


async def test_a_slow_store_is_not_given_up_while_bytes_move(tmp_path: Path) -> None:
    """The limit is on standing still, not on the whole."""
    size = 48 * 2**20
    version = a_file(tmp_path / "a.csv", size)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        missing = size
        loop = asyncio.get_running_loop()
        while missing:
            missing -= len(await reader.readexactly(min(missing, 400_000)))
            tick = asyncio.Event()
            loop.call_later(0.02, tick.set)
            await tick.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with listening(slow) as origin, uploading(stall_timeout=1.0) as uploader:
        receipt = await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert receipt.finished_at - receipt.started_at > 1500


@pytest.mark.parametrize(
    "page",
    ["<!DOCTYPE html><html>Please log in</html>", " <html>", "<?xml version='1.0'?>\n<Error><Code>X</Code></Error>"],
)
async def test_a_page_with_status_200_is_no_delivery(tmp_path: Path, page: str) -> None:
    """A portal that answers everything with its own page has not stored the file."""
    version = a_file(tmp_path / "a.csv")

    async def portal(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(text=page)

    async with serving(portal) as origin, uploading() as uploader:
        with pytest.raises(BadAnswer):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))


@pytest.mark.parametrize("size", [1000, BIG])
async def test_a_file_that_changes_while_it_is_sent_does_not_count(tmp_path: Path, size: int) -> None:
    """A 2xx for a file that was changed meanwhile is no delivery, also when its size and mtime were put back."""
    path = tmp_path / "a.csv"
    version = a_file(path, size)

    async def change(request: web.Request) -> web.StreamResponse:
        await request.read()
        before = path.stat()
        with path.open("r+b") as file:
            file.write(b"changed!")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return web.Response()

    async with serving(change) as origin, uploading() as uploader:
        with pytest.raises(SourceChanged):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))


async def test_a_file_that_is_truncated_while_it_is_sent_is_told_as_such(tmp_path: Path) -> None:
    """The reason is the file, not the broken connection that follows from it."""
    path = tmp_path / "a.csv"
    version = a_file(path, 60 * 2**20)

    async def truncate(request: web.Request) -> web.StreamResponse:
        await request.content.readexactly(100)
        os.truncate(path, 200)
        await request.read()
        return web.Response()

    async with serving(truncate) as origin, uploading() as uploader:
        with pytest.raises(SourceChanged, match=r"truncated|changed"):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))


@pytest.mark.parametrize("fate", ["deleted", "replaced", "appended", "written", "link", "directory", "fifo"])
async def test_a_file_that_is_no_longer_the_version_is_not_sent(tmp_path: Path, fate: str) -> None:
    """What lies at the path is compared before the first byte."""
    path = tmp_path / "a.csv"
    version = a_file(path)
    writer = None
    if fate == "written":
        writer = path.open("ab")
    elif fate == "appended":
        with path.open("ab") as file:
            file.write(b"more")
    else:
        path.rename(tmp_path / "old.csv")
    if fate == "replaced":
        path.write_bytes(b"other")
    elif fate == "link":
        path.symlink_to(tmp_path / "old.csv")
    elif fate == "directory":
        path.mkdir()
    elif fate == "fifo":
        os.mkfifo(path)
    sink = Sink()
    async with serving(sink) as origin, uploading() as uploader:
        with pytest.raises(SourceChanged):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert sink.bodies == []
    if writer:
        writer.close()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (503, "SlowDown", Busy),
        (403, "SignatureDoesNotMatch", SignatureRefused),
        (400, "EntityTooLarge", FileRefused),
        (404, "NoSuchBucket", FeedBlocked),
    ],
)
async def test_a_refusal_is_told_with_its_code_and_without_the_signature(
    tmp_path: Path, status: int, code: str, kind: type[Exception]
) -> None:
    """The store's own code reaches the message; the URL's query never does."""
    version = a_file(tmp_path / "a.csv")

    async def refuse(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=status, text=f"<Error><Code>{code}</Code></Error>")

    async with serving(refuse) as origin, uploading() as uploader:
        with pytest.raises(kind, match=code) as caught:
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    shown = repr(caught.value) + str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert "5ecre7" not in shown


async def test_a_refusal_without_words_after_the_expiry_is_an_expiry(tmp_path: Path) -> None:
    """Ceph gives no reason; that our own estimate was over decides."""
    version = a_file(tmp_path / "a.csv")

    async def refuse(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")

    async with serving(refuse) as origin, uploading() as uploader:
        with pytest.raises(GrantExpired):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED, seconds=-1), Progress(0))


async def test_no_server_is_unreachable_and_its_url_is_not_told(tmp_path: Path) -> None:
    """A refused connection names the origin only."""
    version = a_file(tmp_path / "a.csv")
    async with listening(lambda reader, writer: asyncio.sleep(0)) as origin:
        """Only its port is of use, which is free again afterwards."""
    async with uploading() as uploader:
        with pytest.raises(Unreachable, match="refused") as caught:
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert origin in str(caught.value)
    assert "5ecre7" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://store.example/k?X-Amz-Signature=5ecre7", "https"),
        ("ftp://store.example/k", "http"),
        ("not a url", "http"),
        ("https://user:pass@store.example/k", "user name"),
        ("https:///k", "http"),
    ],
)
async def test_urls_that_must_not_be_used_are_refused_before_anything_is_sent(
    tmp_path: Path, url: str, why: str
) -> None:
    """Plain http goes to loopback only, and credentials in a URL come from nobody we trust."""
    version = a_file(tmp_path / "a.csv")
    async with uploading() as uploader:
        with pytest.raises(FeedBlocked, match=why) as caught:
            await uploader.upload(tmp_path, version, grant_for(url), Progress(0))
    assert "5ecre7" not in str(caught.value)


async def test_a_temporary_redirect_is_followed_with_the_whole_body(tmp_path: Path) -> None:
    """S3 sends 307 for young buckets; the file is sent again from its start."""
    version = a_file(tmp_path / "a.csv", BIG)
    sink = Sink()
    async with serving(sink) as target:

        async def redirect(request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": target + "/there?X-Amz-Signature=n3w"})

        async with serving(redirect) as origin, uploading() as uploader:
            receipt = await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert sink.bodies == [(tmp_path / "a.csv").read_bytes()]
    assert sink.targets == ["/there?X-Amz-Signature=n3w"]
    assert receipt.origin == target


@pytest.mark.parametrize("location", ["http://store.example/k", "ftp://x/y", "https://u:p@store.example/"])
async def test_a_redirect_to_where_no_grant_may_lead_is_not_followed(tmp_path: Path, location: str) -> None:
    """What holds for a grant's URL holds for where it redirects to."""
    version = a_file(tmp_path / "a.csv")

    async def redirect(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=307, headers={"Location": location})

    async with serving(redirect) as origin, uploading() as uploader:
        with pytest.raises(FeedBlocked):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))


async def test_redirects_in_a_circle_end(tmp_path: Path) -> None:
    """Every loop of requests is bounded."""
    version = a_file(tmp_path / "a.csv")
    requests = 0

    async def redirect(request: web.Request) -> web.StreamResponse:
        nonlocal requests
        requests += 1
        await request.read()
        return web.Response(status=307, headers={"Location": "/again"})

    async with serving(redirect) as origin, uploading() as uploader:
        with pytest.raises(FeedBlocked, match="circle"):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert requests == 3


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed, which makes the certificate")
async def test_tls_is_verified_against_ca_file_and_against_nothing_less(tmp_path: Path) -> None:
    """With the store's authority in `ca_file` the file arrives; without it nothing is sent, and the reason is told."""
    ca_file, tls = certificate(tmp_path)
    version = a_file(tmp_path / "a.csv", BIG)
    sink = Sink()
    async with serving(sink, tls=tls) as origin:
        async with uploading() as uploader:
            with pytest.raises(Unreachable, match="certificate is not trusted"):
                await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
        assert sink.bodies == []
        async with uploading(ca_file=ca_file) as uploader:
            receipt = await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert receipt.verified
    assert receipt.origin == origin
    assert sink.bodies == [(tmp_path / "a.csv").read_bytes()]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed, which makes the certificate")
async def test_a_redirect_never_leaves_https(tmp_path: Path) -> None:
    """Not even for this very machine, to which plain http is allowed otherwise."""
    ca_file, tls = certificate(tmp_path)
    version = a_file(tmp_path / "a.csv")
    sink = Sink()
    async with serving(sink) as plain:

        async def redirect(request: web.Request) -> web.StreamResponse:
            await request.read()
            return web.Response(status=307, headers={"Location": plain + "/there"})

        async with serving(redirect, tls=tls) as origin, uploading(ca_file=ca_file) as uploader:
            with pytest.raises(FeedBlocked, match="without https"):
                await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert sink.bodies == []


def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Whether it is missing or holds no certificates."""
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(Fatal, match=name):
            tls_context(tmp_path / name)


async def test_uploads_go_through_the_proxy_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request for another host reaches the proxy, with the URL as it was spelt."""
    version = a_file(tmp_path / "a.csv")
    sink = Sink()
    async with serving(sink) as proxy, uploading() as uploader:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setattr(uploader, "_allow_http", True)
        _proxy.cache_clear()
        try:
            await uploader.upload(tmp_path, version, grant_for("http://store.invalid" + SIGNED), Progress(0))
        finally:
            _proxy.cache_clear()
    assert sink.targets == ["http://store.invalid" + SIGNED]


async def test_an_answer_that_comes_in_pieces_is_read_whole(tmp_path: Path) -> None:
    """The code may stand in the second packet, and so may the page that is no success."""
    version = a_file(tmp_path / "a.csv")

    async def pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1000)
        first, second = b"<?xml version='1.0'?>", b"<Error><Code>RequestTimeout</Code></Error>"
        length = len(first) + len(second)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % length + first)
        await writer.drain()
        later = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, later.set)
        await later.wait()
        writer.write(second)

    async with listening(pieces) as origin, uploading() as uploader:
        with pytest.raises(Busy, match="RequestTimeout"):
            await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))


async def test_a_slow_connection_does_not_count_as_a_host_that_never_says_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait for the interim answer begins when the headers are out."""
    monkeypatch.setattr(put, "CONTINUE_TIMEOUT", 0.3)
    version = a_file(tmp_path / "a.csv", BIG)
    sink = Sink()
    async with serving(sink) as origin, uploading() as uploader:
        connect = uploader._session.connector.connect  # type: ignore[union-attr]

        async def slowly(*arguments: object, **options: object) -> object:
            later = asyncio.Event()
            asyncio.get_running_loop().call_later(0.6, later.set)
            await later.wait()
            return await connect(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(uploader._session.connector, "connect", slowly)
        await uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0))
    assert ["Expect" in headers for headers in sink.headers] == [True]


async def test_a_cancelled_upload_leaves_no_file_open(tmp_path: Path) -> None:
    """At whatever point it is cut off."""
    version = a_file(tmp_path / "a.csv", BIG)
    sink = Sink()
    async with serving(sink) as origin, uploading() as uploader:
        for turns in range(0, 60, 3):
            task = asyncio.create_task(uploader.upload(tmp_path, version, grant_for(origin + SIGNED), Progress(0)))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait((task,))
    async with asyncio.timeout(PATIENCE):
        while str(tmp_path / "a.csv") in open_files():
            await asyncio.sleep(0)


def open_files() -> list[str]:
    """What this process has open."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link)]


async def test_a_directory_that_may_no_longer_be_read_blocks_its_feed_and_refuses_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are as good as ever once the permission is back."""
    version = a_file(tmp_path / "a.csv")

    def denied(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tablefeed.upload.source.os.open", denied)
    async with uploading() as uploader:
        with pytest.raises(DiskTrouble, match="may not be read"):
            await uploader.upload(tmp_path, version, grant_for("https://127.0.0.1:1/k"), Progress(0))
        monkeypatch.setattr("tablefeed.upload.source.os.access", lambda *_, **__: False)
        with pytest.raises(FeedBlocked, match="directory"):
            await uploader.upload(tmp_path, version, grant_for("https://127.0.0.1:1/k"), Progress(0))


async def test_a_proxy_that_refuses_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """407 is the proxy's word, not broken HTTP."""
    version = a_file(tmp_path / "a.csv")

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    async with listening(refuse) as proxy, uploading() as uploader:
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        _proxy.cache_clear()
        try:
            with pytest.raises(Unreachable, match="proxy answered 407"):
                await uploader.upload(tmp_path, version, grant_for("https://store.invalid" + SIGNED), Progress(0))
        finally:
            _proxy.cache_clear()


async def test_tls_to_a_server_without_it_is_told_as_such(tmp_path: Path) -> None:
    """Not as a missing permission."""
    version = a_file(tmp_path / "a.csv")
    async with serving(Sink()) as origin, uploading() as uploader:
        with pytest.raises(Unreachable, match="TLS failed"):
            await uploader.upload(tmp_path, version, grant_for(origin.replace("http:", "https:") + SIGNED), Progress(0))
