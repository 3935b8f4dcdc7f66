"""The sandbox over real sockets: the API's contract, the store's refusals, and what is on the disk afterwards."""

import asyncio
import base64
import gzip
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import boto3
import pytest
from botocore.config import Config
from structlog.testing import capture_logs

from support.patience import PATIENCE, until
from support.sandbox import API_KEY, PRESIGN, Clock, bare_client, contents, grant, md5, put
from tablefeed.errors import CannotListen, Exit
from tablefeed.sandbox.objects import StoredObject
from tablefeed.sandbox.server import RunningSandbox, SandboxSettings, running
from tablefeed.sandbox.store import CHUNK, MAX_OBJECT

FULL_QUERY = {"datasetid": "dataset-1", "filename": "a.csv", "filesize": "3", "filelastmodified": "1764000000000.5"}


@dataclass
class Bench:
    """One running sandbox, and everything a test needs to talk to it."""

    settings: SandboxSettings
    clock: Clock
    sandbox: RunningSandbox
    http: aiohttp.ClientSession
    stored: list[StoredObject] = field(default_factory=list)

    @property
    def objects(self) -> dict[str, bytes]:
        """All objects there are."""
        return contents(self.sandbox.objects)

    @property
    def incoming(self) -> list[Path]:
        """All drafts there are."""
        return list((self.settings.data / "incoming").iterdir())

    async def grant(self, **query: str) -> str:
        """A presigned URL."""
        return await grant(self.http, self.sandbox.base_url, **query)

    async def api(self, path: str, key: str | None = API_KEY, **query: str) -> tuple[int, Any]:
        """Status and JSON of a call to the API."""
        headers = {} if key is None else {"x-api-key": key}
        async with self.http.get(self.sandbox.base_url + path, params=query, headers=headers) as response:
            return response.status, await response.json()


@pytest.fixture
def settings(tmp_path: Path) -> SandboxSettings:
    """The settings that most tests use."""
    return SandboxSettings(data=tmp_path / "data", api_key=API_KEY)


@pytest.fixture
async def bench(settings: SandboxSettings) -> AsyncIterator[Bench]:
    """A sandbox on a free port, with a clock that stands still."""
    clock, stored = Clock(), list[StoredObject]()
    async with (
        running(settings, clock=clock, on_object=stored.append) as sandbox,
        aiohttp.ClientSession() as http,
    ):
        yield Bench(settings, clock, sandbox, http, stored)


def boto_url(bench: Bench, **params: str) -> str:
    """A URL that boto3 signs with the store's credentials. Sets the store's clock to the real time, as boto3 does."""
    bench.clock.now = time.time()
    keys = bench.sandbox.credentials
    client = boto3.client(
        "s3",
        endpoint_url=bench.sandbox.base_url,
        region_name=keys.region,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    url: str = client.generate_presigned_url("put_object", Params={"Bucket": bench.sandbox.bucket, **params})
    return url


# the API


async def test_catalog(bench: Bench) -> None:
    """Tenant, organization, datasets and datatables are shown in the shapes that the vendor documents."""
    tenant = "/tenant/tenant-123"
    status, body = await bench.api(tenant)
    assert status == 200
    assert {"name", "createdDate", "plan"} <= body.keys()
    assert (await bench.api(f"{tenant}/organization"))[0] == 200
    _, datasets = await bench.api(f"{tenant}/datasets")
    assert all(dataset.keys() == {"id", "displayName", "createdAt", "datatableCount"} for dataset in datasets)
    found = []
    for row in datasets:
        _, dataset = await bench.api(f"{tenant}/datasets/{row['id']}")
        assert dataset.keys() == {"id", "displayName", "createdAt", "datatables"}
        assert len(dataset["datatables"]) == row["datatableCount"]
        found += dataset["datatables"]
    assert (await bench.api(f"{tenant}/datatables")) == (200, found)
    for table in found:
        assert table.keys() == {"id", "displayName", "rowCount"}
        assert (await bench.api(f"{tenant}/datatable/{table['id']}")) == (200, table)
    assert "table-456" in {table["id"] for table in found}


@pytest.mark.parametrize("path", ["/tenant/tenant-123", PRESIGN, "/tenant/nobody", "/tenant/tenant-123/nothing"])
async def test_key(bench: Bench, path: str) -> None:
    """No call is answered without the key, nor with another one, whatever it asks for."""
    assert await bench.api(path, key=None) == (401, {"message": "The header x-api-key is missing."})
    assert await bench.api(path, key="other-ä") == (403, {"message": "Forbidden"})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/tenant/tenant-9", "There is no tenant tenant-9."),
        ("/tenant/tenant-9/datatable/table-456/uploads/presignedurl", "There is no tenant tenant-9."),
        ("/tenant/tenant-123/datasets/dataset-9", "There is no dataset dataset-9."),
        ("/tenant/tenant-123/datatable/table-9", "There is no datatable table-9."),
        ("/tenant/tenant-123/datatable/table-9/uploads/presignedurl", "There is no datatable table-9."),
        ("/tenant/tenant-123/nothing", "Not Found"),
        ("/", "Not Found"),
    ],
)
async def test_unknown_things(bench: Bench, path: str, message: str) -> None:
    """What is not there is 404, as JSON with a message that names it."""
    assert await bench.api(path) == (404, {"message": message})


async def test_first_contract_demands_nothing(bench: Bench) -> None:
    """Without any query each call still gives another URL, and the object has a name."""
    urls = {await bench.grant() for _ in range(3)}
    assert len(urls) == 3
    for url in urls:
        assert (await put(bench.http, url, b"x")).status == 200
    assert len(bench.objects) == 3


async def test_strict_contract(settings: SandboxSettings) -> None:
    """The vendor's later contract demands four parameters and says which are missing or wrong."""
    async with running(replace(settings, strict=True)) as sandbox, aiohttp.ClientSession() as http:
        bench = Bench(settings, Clock(), sandbox, http)
        assert "a.csv" in await bench.grant(**FULL_QUERY)
        status, body = await bench.api(PRESIGN, filename="a.csv", filesize="many")
        assert status == 400
        assert body["message"] == (
            "datasetid is missing; filelastmodified is missing; filesize must be a whole number of bytes."
        )


async def test_dataset_must_hold_the_datatable(bench: Bench) -> None:
    """A dataset that does not exist is 404; one without the datatable is 400."""
    assert (await bench.api(PRESIGN, datasetid="dataset-9"))[0] == 404
    status, body = await bench.api(PRESIGN, datasetid="dataset-2")
    assert (status, body["message"]) == (400, "The dataset dataset-2 does not contain the datatable table-456.")


@pytest.mark.parametrize(
    ("url_lifetime", "asked", "given"),
    [(3600.0, None, 3600), (3600.0, "60", 60), (3600.0, "604800", 3600), (0.2, None, 1), (1e9, None, 604_800)],
)
async def test_lifetime(settings: SandboxSettings, url_lifetime: float, asked: str | None, given: int) -> None:
    """A grant lives as long as was asked for, but never longer than the sandbox's own limit and never 0 s."""
    async with running(replace(settings, url_lifetime=url_lifetime)) as sandbox, aiohttp.ClientSession() as http:
        query = {} if asked is None else {"validforseconds": asked}
        url = await grant(http, sandbox.base_url, **query)
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == [str(given)]


async def test_date_follows_the_clock(bench: Bench) -> None:
    """API and store say the time of their own clock, so that expiry can be read against it."""
    bench.clock.now = 1_000_000_000.0
    for path in (PRESIGN, "/store/x", "/nothing"):
        async with bench.http.get(bench.sandbox.base_url + path) as response:
            assert response.headers.getall("Date") == ["Sun, 09 Sep 2001 01:46:40 GMT"]


# the store: what is taken


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
async def test_delivery(bench: Bench, size: int) -> None:
    """The object holds the very bytes, and the answer has their MD5 and a request id."""
    body = bytes(index % 251 for index in range(size))
    answer = await put(bench.http, await bench.grant(filename="orders.csv"), body)
    assert (answer.status, answer.body) == (200, "")
    assert answer.headers["ETag"] == f'"{md5(body)}"'
    assert answer.headers["x-amz-request-id"]
    [(name, stored)] = bench.objects.items()
    assert stored == body
    assert name.startswith("table-456/20251124T160000Z-")
    assert name.endswith("-orders.csv")
    assert bench.incoming == []
    [told] = bench.stored
    assert (told.path, told.size, told.md5) == (bench.sandbox.objects / name, size, md5(body))


@pytest.mark.parametrize(
    "name",
    [
        "two  words & more #1 + 50%.csv",
        "a%2Fb.csv",
        "Aufträge Köln.xlsx",
        "采购订单.csv",
        'it\'s "quoted" <b>.csv',
        "tab\tline\n.csv",
        "../../../etc/passwd",
        "ä" * 125 + "x.csv",
        "采" * 83 + "12.csv",
    ],
)
async def test_awkward_names(bench: Bench, name: str) -> None:
    """Whatever the file is called, its grant is good and its object lies in the datatable's directory."""
    answer = await put(bench.http, await bench.grant(filename=name), b"x")
    assert answer.status == 200, answer.body
    [path] = bench.objects
    assert path.startswith("table-456/2025")
    assert path.count("/") == 1
    assert contents(bench.settings.data) == {f"objects/{path}": b"x"}


async def test_same_grant_same_object(bench: Bench) -> None:
    """A second PUT on one grant replaces its object; another grant for the same name makes another one."""
    url = await bench.grant(filename="a.csv")
    for body in (b"first", b"second"):
        assert (await put(bench.http, url, body)).status == 200
    assert list(bench.objects.values()) == [b"second"]
    assert (await put(bench.http, await bench.grant(filename="a.csv"), b"third")).status == 200
    assert sorted(bench.objects.values()) == [b"second", b"third"]


async def test_boto3_may_sign_too(bench: Bench) -> None:
    """A URL that boto3 made with the store's credentials is as good as our own."""
    url = boto_url(bench, Key="dir/sub dir/é.csv", ContentType="text/csv")
    assert (await put(bench.http, url, b"x", Content_Type="text/csv")).status == 200
    assert bench.objects == {"dir/sub dir%2Fé.csv": b"x"}
    assert (await put(bench.http, url, b"y", Content_Type="text/plain")).code == "SignatureDoesNotMatch"


async def test_encoded_body_is_kept_as_it_is(bench: Bench) -> None:
    """A compressed body with `Content-Encoding` is stored compressed: the store counts and hashes what was sent."""
    body = gzip.compress(b"x" * 1000)
    answer = await put(bench.http, await bench.grant(), body, Content_Encoding="gzip")
    assert answer.status == 200
    assert list(bench.objects.values()) == [body]


async def test_content_md5(bench: Bench) -> None:
    """A right `Content-MD5` is taken, a wrong one is BadDigest and leaves nothing, nonsense is InvalidDigest."""
    right = base64.b64encode(bytes.fromhex(md5(b"right"))).decode()
    url = await bench.grant()
    wrong = await put(bench.http, url, b"wrong", Content_MD5=right)
    assert (wrong.status, wrong.code) == (400, "BadDigest")
    for text in ("nonsense!", base64.b64encode(b"short").decode(), md5(b"right")):
        invalid = await put(bench.http, url, b"right", Content_MD5=text)
        assert (invalid.status, invalid.code) == (400, "InvalidDigest")
    await until(lambda: bench.incoming == [])
    assert bench.objects == {}
    assert (await put(bench.http, url, b"right", Content_MD5=right)).status == 200


# the store: what is refused


async def test_expired(bench: Bench) -> None:
    """After its lifetime a grant is refused with S3's words; a new one is good."""
    url = await bench.grant(validforseconds="60")
    bench.clock.now += 61
    answer = await put(bench.http, url, b"x")
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert "<Message>Request has expired</Message>" in answer.body
    assert f"<RequestId>{answer.headers['x-amz-request-id']}</RequestId>" in answer.body
    assert answer.headers["Content-Type"] == "application/xml"
    assert bench.objects == {}
    assert (await put(bench.http, await bench.grant(), b"x")).status == 200


async def test_expiry_during_the_transfer(bench: Bench) -> None:
    """A transfer that began in time goes on after the expiry."""
    url = await bench.grant(validforseconds="60")
    async with bare_client(url) as client:
        await client.request("PUT", url, "Content-Length: 2", "Expect: 100-continue")
        assert "100 Continue" in await client.head()
        bench.clock.now += 61
        await client.send(b"ab")
        assert "200 OK" in await client.head()
    assert list(bench.objects.values()) == [b"ab"]


async def test_tampered(bench: Bench) -> None:
    """A URL for one file name cannot be used for another."""
    url = await bench.grant(filename="a.csv")
    answer = await put(bench.http, url.replace("a.csv", "b.csv"), b"x")
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")
    assert bench.objects == {}


async def test_unsigned_amz_header(bench: Bench) -> None:
    """An `x-amz-*` header that the URL was not signed for is refused by name."""
    answer = await put(bench.http, await bench.grant(), b"x", x_amz_acl="private")
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert "<HeadersNotSigned>x-amz-acl</HeadersNotSigned>" in answer.body


async def test_other_methods(bench: Bench) -> None:
    """The store takes PUT of an object and nothing else."""
    url = await bench.grant()
    for method, target in (("GET", url), ("POST", url), ("PUT", f"{bench.sandbox.base_url}/store/")):
        async with bench.http.request(method, target) as response:
            assert response.status == 405
            assert "<Code>MethodNotAllowed</Code>" in await response.text()


async def test_key_too_long(bench: Bench) -> None:
    """A key of more than 1024 bytes is refused, even one that is well signed."""
    for length, code in ((1024, ""), (1025, "KeyTooLongError")):
        assert (await put(bench.http, boto_url(bench, Key="k" * length), b"x")).code == code


@pytest.mark.parametrize("headers", [["Transfer-Encoding: chunked"], []])
async def test_length_is_required(bench: Bench, headers: list[str]) -> None:
    """A body without a length, chunked or not, is refused."""
    url = await bench.grant()
    async with bare_client(url) as client:
        await client.request("PUT", url, *headers)
        head = await client.head()
        assert head.startswith("HTTP/1.1 411 ")
        assert "connection: close" in head.lower()


@pytest.mark.parametrize(
    ("change", "headers", "status"),
    [
        ("signature", ["Content-Length: 3"], 403),
        ("expiry", ["Content-Length: 3"], 403),
        ("", [f"Content-Length: {MAX_OBJECT + 1}"], 400),
        ("", ["Transfer-Encoding: chunked"], 411),
        ("", ["Content-Length: 3", "Content-MD5: nonsense"], 400),
    ],
)
async def test_refusal_asks_for_no_body(bench: Bench, change: str, headers: list[str], status: int) -> None:
    """A client that expects `100 Continue` gets the refusal at once instead, and the connection is given up."""
    url = await bench.grant()
    if change == "signature":
        url = url[:-1] + ("0" if url[-1] != "0" else "1")
    elif change == "expiry":
        bench.clock.now += 3601
    async with bare_client(url) as client:
        await client.request("PUT", url, "Expect: 100-continue", *headers)
        head = await client.head()
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert "connection: close" in head.lower()


async def test_largest_object_is_asked_for(bench: Bench) -> None:
    """A length of exactly 5 GiB is not refused."""
    url = await bench.grant()
    async with bare_client(url) as client:
        await client.request("PUT", url, "Expect: 100-continue", f"Content-Length: {MAX_OBJECT}")
        assert "100 Continue" in await client.head()


async def test_refusal_is_readable_while_the_body_comes(bench: Bench) -> None:
    """A client that sends a large body without asking still gets to read why it is refused."""
    url = await bench.grant()
    bench.clock.now += 3601
    answer = await put(bench.http, url, bytes(8 * CHUNK))
    assert (answer.status, answer.code) == (403, "AccessDenied")


# the store: what is left on the disk


async def test_short_body_leaves_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A client that dies in the middle of the body leaves no object and no draft, and is no error of the server."""
    url = await bench.grant()
    async with bare_client(url) as client:
        await client.request("PUT", url, f"Content-Length: {4 * CHUNK}")
        await client.send(bytes(2 * CHUNK))
        await until(lambda: bench.incoming != [])
    await until(lambda: bench.incoming == [])
    assert (bench.objects, bench.stored, caplog.records) == ({}, [], [])


async def test_resting_body_times_out(settings: SandboxSettings) -> None:
    """A body that stops coming is answered with RequestTimeout and leaves nothing."""
    async with running(replace(settings, body_timeout=0.05)) as sandbox, aiohttp.ClientSession() as http:
        url = await grant(http, sandbox.base_url)
        async with bare_client(url) as client:
            await client.request("PUT", url, f"Content-Length: {2 * CHUNK}")
            await client.send(bytes(CHUNK + 1))
            assert (await client.head()).startswith("HTTP/1.1 400 ")
            assert "<Code>RequestTimeout</Code>" in (await client.body())
        await until(lambda: contents(settings.data) == {})


async def test_stop_during_a_body(settings: SandboxSettings) -> None:
    """A sandbox stops within seconds, whoever is still sending, and leaves no half object."""
    async with aiohttp.ClientSession() as http, AsyncExitStack() as clients:
        async with running(settings) as sandbox:
            url = await grant(http, sandbox.base_url)
            client = await clients.enter_async_context(bare_client(url))
            await client.request("PUT", url, f"Content-Length: {4 * CHUNK}")
            await client.send(bytes(2 * CHUNK))
            await until(lambda: contents(settings.data) != {})
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 10
        assert contents(settings.data) == {}


@pytest.mark.parametrize("client_is_gone", [False, True])
async def test_stop_while_the_disk_hangs(
    settings: SandboxSettings, monkeypatch: pytest.MonkeyPatch, client_is_gone: bool
) -> None:
    """A sandbox that is stopped waits for a write that hangs in the disk, and then removes what it wrote."""
    writing, go_on = threading.Event(), threading.Event()
    really_open = os.open

    def slow_open(path: Path, *args: int) -> int:
        if "incoming" in str(path):
            writing.set()
            go_on.wait(2 * PATIENCE)
        return really_open(path, *args)

    monkeypatch.setattr("os.open", slow_open)
    async with aiohttp.ClientSession() as http, AsyncExitStack() as clients:
        async with running(settings) as sandbox:
            url = await grant(http, sandbox.base_url)
            client = await clients.enter_async_context(bare_client(url))
            await client.request("PUT", url, f"Content-Length: {4 * CHUNK}")
            await client.send(bytes(CHUNK + 1))
            await until(writing.is_set)
            if client_is_gone:
                await client.close()
                await grant(
                    http, sandbox.base_url
                )  # by its answer, the server has seen the end of the other connection
            stopping = time.monotonic()
            asyncio.get_running_loop().call_later(0.8, go_on.set)
        assert go_on.is_set()
        assert time.monotonic() - stopping < 10
        assert contents(settings.data) == {}


async def test_grants_outlive_a_restart(settings: SandboxSettings) -> None:
    """A grant is as good after a restart on the same port, and drafts of the killed process are removed."""
    async with aiohttp.ClientSession() as http:
        async with running(settings) as sandbox:
            url = await grant(http, sandbox.base_url)
        (settings.data / "incoming" / "half").write_bytes(b"ha")
        async with running(settings, port=int(sandbox.base_url.rpartition(":")[2])):
            assert (await put(http, url, b"x")).status == 200
    assert list(contents(settings.data).values()) == [b"x"]


async def test_disk_trouble(bench: Bench) -> None:
    """When the disk refuses, the answer is S3's InternalError, the cause is logged, and the next PUT can succeed."""
    obstacle = bench.sandbox.objects / "table-456"
    obstacle.write_bytes(b"")
    url = await bench.grant()
    with capture_logs() as logs:
        answer = await put(bench.http, url, b"x")
    assert (answer.status, answer.code) == (500, "InternalError")
    assert [entry["event"] for entry in logs] == ["sandbox_write_failed"]
    await until(lambda: bench.incoming == [])
    obstacle.unlink()
    assert (await put(bench.http, url, b"x")).status == 200


# the server


async def test_port_in_use(settings: SandboxSettings) -> None:
    """A port that is taken is said so, by address, and the drafts of the sandbox that has it are left alone."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        draft = settings.data / "incoming" / "draft"
        draft.parent.mkdir(parents=True)
        draft.write_bytes(b"x")
        with pytest.raises(CannotListen, match=rf"127\.0\.0\.1:{port}: .*in use") as caught:
            async with running(settings, port=port):
                pass
    assert caught.value.exit_code is Exit.CANNOT_CREATE
    assert draft.exists()


async def test_unknown_host(settings: SandboxSettings) -> None:
    """A host that is not this machine's cannot be listened on."""
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1:0: Cannot assign requested address\."):
        async with running(settings, host="192.0.2.1"):
            pass


async def test_nothing_secret_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the key nor a signature gets into any log, at any level, delivered or refused."""
    caplog.set_level(logging.DEBUG)
    url = await bench.grant()
    signature = url.rpartition("=")[2]
    with capture_logs() as logs:
        await put(bench.http, url, b"x")
        await put(bench.http, url.replace("table-456", "table-457"), b"x")
        await bench.api("/tenant/tenant-123", key="other")
    text = caplog.text + str(logs)
    assert not [secret for secret in (signature, API_KEY, bench.sandbox.credentials.secret_key) if secret in text]
    assert API_KEY not in repr(bench.settings)
    assert bench.sandbox.credentials.secret_key not in repr(bench.sandbox)


async def test_many_at_once(bench: Bench) -> None:
    """Hundreds of PUTs at once each end as one whole object."""

    async def deliver(number: int) -> None:
        url = await bench.grant(filename=f"{number}.csv")
        assert (await put(bench.http, url, b"%d" % number)).status == 200

    await asyncio.gather(*(deliver(number) for number in range(300)))
    assert sorted(bench.objects.values()) == sorted(b"%d" % number for number in range(300))
    assert len(bench.stored) == 300
