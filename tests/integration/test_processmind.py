import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from support.daemon import KEY
from support.stores import api_at, serving
from tablefeed import ProcessMindClient, client
from tablefeed.errors import BadAnswer, Busy, FeedBlocked, Transient, Unreachable
from tablefeed.sandbox.server import RunningSandbox, SandboxSettings, running


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[RunningSandbox]:
    async with running(SandboxSettings(tmp_path / "data", KEY, strict=True)) as sandbox:
        yield sandbox


async def test_the_whole_api_is_read(sandbox: RunningSandbox) -> None:
    """Tenant, organization, datasets, a dataset with its datatables, datatables, a datatable."""
    async with api_at(sandbox.base_url) as api:
        assert (await api.tenant()).display_name
        assert (await api.organization()).display_name
        datasets = await api.datasets()
        assert [dataset.id for dataset in datasets] == ["dataset-1", "dataset-2"]
        assert "table-456" in [table.id for table in (await api.dataset("dataset-1")).datatables]
        assert "table-456" in [table.id for table in await api.datatables()]
        assert (await api.datatable("table-456")).id == "table-456"
        assert await api.find_dataset("table-456") == "dataset-1"


async def test_a_datatable_that_no_dataset_holds_is_named(sandbox: RunningSandbox) -> None:
    """The lookup says what to do instead."""
    async with api_at(sandbox.base_url) as api:
        with pytest.raises(FeedBlocked, match=r"table-0.*dataset_id"):
            await api.find_dataset("table-0")


async def test_a_refused_key_names_where_it_comes_from(sandbox: RunningSandbox) -> None:
    """Neither the wrong key nor the right one is in the message."""
    async with api_at(sandbox.base_url, key="wr0ng-key") as api:
        with pytest.raises(FeedBlocked, match="file /etc/key") as caught:
            await api.tenant()
    assert "wr0ng-key" not in str(caught.value)


async def test_a_key_that_was_replaced_in_its_file_is_used_at_once(sandbox: RunningSandbox) -> None:
    """A refused key is read again before the feed is paused for it."""
    async with api_at(sandbox.base_url, key="0ld-key", later=KEY) as api:
        assert (await api.tenant()).id


async def test_an_unknown_tenant_or_datatable_is_named(sandbox: RunningSandbox) -> None:
    """404 leads to the setting."""
    async with api_at(sandbox.base_url, tenant="tenant-0") as api:
        with pytest.raises(FeedBlocked, match="tenant-0"):
            await api.tenant()
    async with api_at(sandbox.base_url) as api:
        with pytest.raises(FeedBlocked, match="datatable_id"):
            await api.datatable("table-0")


async def test_the_call_carries_what_the_guide_says(tmp_path: Path) -> None:
    """Path, query with awkward names spelt right, and the key in its header."""
    seen: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return web.json_response({"PreSignedUploadUrl": "https://s/k"})

    name = "Übersicht 1+2 & #3 %2F 'q' \"z\" 中.csv"
    async with serving(answer) as origin, api_at(origin) as api:
        url = await api.presigned_upload_url(
            "table/4?", dataset_id="d-1", filename=name, size=7, modified_ms=1_700_000_000_123, lifetime=3600.0
        )
    [request] = seen
    assert url == "https://s/k"
    assert request.raw_path.startswith("/tenant/tenant-123/datatable/table%2F4%3F/uploads/presignedurl?")
    assert dict(request.query) == {
        "datasetid": "d-1",
        "filename": name,
        "filesize": "7",
        "filelastmodified": "1700000000123",
        "validforseconds": "3600",
    }
    assert request.headers["x-api-key"] == KEY


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (lambda: web.Response(text="<html>hello</html>", content_type="text/html"), BadAnswer),
        (lambda: web.json_response({"other": 1}), BadAnswer),
        (lambda: web.json_response({"PreSignedUploadUrl": 7}), BadAnswer),
        (lambda: web.json_response([1, 2]), BadAnswer),
        (lambda: web.Response(text="[" * 200_000, content_type="application/json"), BadAnswer),
        (lambda: web.Response(status=302, headers={"Location": "https://elsewhere.example/"}), BadAnswer),
        (lambda: web.Response(status=429, headers={"Retry-After": "17"}), Busy),
        (lambda: web.Response(status=503, text="<html>down</html>"), Busy),
        (lambda: web.json_response({"message": f"key {KEY} is\nbad"}, status=400), FeedBlocked),
    ],
)
async def test_answers_that_are_no_url_are_told_apart(response: object, kind: type[Exception]) -> None:
    """A proxy's page, JSON of another form, a redirect, an overload: none is an unhandled error, none holds the key."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return response()  # type: ignore[operator, no-any-return]

    async with serving(answer) as origin, api_at(origin) as api:
        with pytest.raises(kind) as caught:
            await api.presigned_upload_url("t", dataset_id="d", filename="a.csv", size=1, modified_ms=1)
    assert KEY not in str(caught.value)
    if isinstance(caught.value, Busy):
        assert caught.value.retry_after in (17.0, None)


async def test_an_answer_without_end_is_cut_off() -> None:
    """A broken server cannot fill our memory."""

    async def flood(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse()
        await stream.prepare(request)
        for _ in range(40):
            await stream.write(b" " * 2**20)
        return stream

    async with serving(flood) as origin, api_at(origin) as api:
        with pytest.raises(Transient):
            await api.tenant()


async def test_the_key_is_not_sent_along_a_redirect() -> None:
    """The key goes to the API's origin only."""
    received: list[str | None] = []

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        received.append(request.headers.get("x-api-key"))
        return web.json_response({})

    async with serving(elsewhere) as other:

        async def redirect(request: web.Request) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": other + "/x"})

        async with serving(redirect) as origin, api_at(origin) as api:
            with pytest.raises(BadAnswer):
                await api.tenant()
    assert received == []


async def test_no_server_is_unreachable() -> None:
    """A port on which nobody listens is an outage, not a crash."""

    async def nothing(request: web.Request) -> web.StreamResponse:
        return web.Response()

    async with serving(nothing) as origin:
        """Only its port is of use, which is free again afterwards."""
    async with api_at(origin) as api:
        with pytest.raises(Unreachable, match="refused"):
            await api.tenant()


async def test_the_library_example_works(
    sandbox: RunningSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example in the client's documentation runs as it stands, and its file arrives."""
    lines = [line[4:] for line in (client.__doc__ or "").splitlines() if line.startswith("    ")]
    code = "async def example(ProcessMindClient, key):\n" + "\n".join("    " + line for line in lines)
    namespace: dict[str, object] = {}
    exec(code, namespace)  # noqa: S102 - the documentation's own code
    (tmp_path / "orders.csv").write_bytes(b"case,activity\n1,Create\n")
    monkeypatch.chdir(tmp_path)

    def at_the_sandbox(api_key: str, tenant_id: str) -> ProcessMindClient:
        return ProcessMindClient(api_key, tenant_id, base_url=sandbox.base_url)

    await namespace["example"](at_the_sandbox, KEY)  # type: ignore[operator]
    out = capsys.readouterr().out
    assert "dataset-1" in out
    assert out.rstrip().endswith(" 200")
    [stored] = [path for path in sandbox.objects.rglob("*") if path.is_file()]
    assert stored.read_bytes() == b"case,activity\n1,Create\n"


async def test_the_library_gives_urls_and_names(sandbox: RunningSandbox) -> None:
    """Each of the guide's four calls is one method."""
    async with ProcessMindClient(KEY, "tenant-123", base_url=sandbox.base_url) as processmind:
        url = await processmind.get_presigned_upload_url(
            "table-456", filename="a.csv", filesize=3, filelastmodified=1_700_000_000_000
        )
        assert url.startswith(sandbox.base_url)
        assert (await processmind.get_tenant()).id
        assert (await processmind.get_organization()).display_name
        assert [table.id for table in (await processmind.get_dataset("dataset-1")).datatables]
        assert len(json.dumps([dict(d.raw) for d in await processmind.get_datasets()])) > 10


def test_the_library_sends_no_key_in_the_clear() -> None:
    """Plain http goes to this machine only."""
    with pytest.raises(ValueError, match="https"):
        ProcessMindClient(KEY, "tenant-123", base_url="http://api.example")


async def test_a_file_behind_a_link_is_uploaded_under_its_own_name(sandbox: RunningSandbox, tmp_path: Path) -> None:
    """A library's caller names what it means; links are followed."""
    (tmp_path / "orders.csv").write_bytes(b"content")
    (tmp_path / "latest.csv").symlink_to(tmp_path / "orders.csv")
    async with ProcessMindClient(KEY, "tenant-123", base_url=sandbox.base_url) as processmind:
        receipt = await processmind.upload_file(tmp_path / "latest.csv", "table-456")
    assert receipt.verified
    [stored] = [path for path in sandbox.objects.rglob("*") if path.is_file()]
    assert stored.name.endswith("orders.csv")
