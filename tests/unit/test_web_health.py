"""The probes, asked over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from support.panel import FakePanel
from tablefeed.errors import CannotListen, Exit
from tablefeed.web.server import make_app, running


class Stuck(FakePanel):
    """Never answers."""

    async def problems(self) -> list[str]:
        await asyncio.Event().wait()
        return []


@pytest.fixture
def health() -> FakePanel:
    return FakePanel()


@pytest.fixture
async def address(health: FakePanel) -> AsyncIterator[str]:
    async with running(make_app(health), "127.0.0.1:0") as bound:
        yield bound


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_healthz_is_ok_whatever_the_problems_are(
    address: str, client: aiohttp.ClientSession, health: FakePanel
) -> None:
    """An outage must not get the daemon restarted."""
    health.said = ["the ledger is closed"]
    async with client.get(f"http://{address}/healthz") as answer:
        assert (answer.status, (await answer.text()).strip()) == (200, "ok")


async def test_healthz_fails_where_only_a_restart_helps(
    address: str, client: aiohttp.ClientSession, health: FakePanel
) -> None:
    """And says why."""
    health.ailing = ["the dispatcher has ended"]
    async with client.get(f"http://{address}/healthz") as answer:
        assert (answer.status, await answer.json()) == (503, {"alive": False, "problems": health.ailing})


async def test_readyz_tells_the_problems(address: str, client: aiohttp.ClientSession, health: FakePanel) -> None:
    """Readiness follows the service's own word, and says what is wrong."""
    async with client.get(f"http://{address}/readyz") as answer:
        assert (answer.status, await answer.json()) == (200, {"ready": True, "problems": []})
    health.said = ["/srv/exports cannot be read"]
    async with client.get(f"http://{address}/readyz") as answer:
        assert (answer.status, await answer.json()) == (503, {"ready": False, "problems": health.said})


async def test_readyz_answers_even_if_the_service_does_not(client: aiohttp.ClientSession) -> None:
    """A ledger that hangs makes the daemon unready, and the probe does not hang with it."""
    app = make_app(Stuck(), ready_timeout=0.05)
    async with running(app, "127.0.0.1:0") as bound, client.get(f"http://{bound}/readyz") as answer:
        assert answer.status == 503
        assert "within 0.05 s" in (await answer.json())["problems"][0]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/no/such", 404), ("POST", "/healthz", 405)])
async def test_refusals_are_json_and_bear_the_headers_too(
    address: str, client: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    """Programs that ask for what is not there get an answer they can read, as safe as any other."""
    async with client.request(method, f"http://{address}{path}") as answer:
        assert answer.status == status
        assert "error" in await answer.json()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert ("Allow" in answer.headers) == (status == 405)


async def test_no_answer_names_the_software_behind_it(address: str, client: aiohttp.ClientSession) -> None:
    """The versions of Python and aiohttp are nobody's business; nothing is cached or sniffed."""
    async with client.get(f"http://{address}/healthz") as answer:
        assert answer.headers["Server"] == "tablefeed"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "host",
    ["10.1.2.3:8787", "10.1.2.3", "[::1]:8787", "[fe80::1]", "localhost", "LOCALHOST:1", "a.localhost", "localhost."],
)  # fmt: skip
async def test_probes_by_address_pass(address: str, client: aiohttp.ClientSession, host: str) -> None:
    """A kubelet asks by the pod's address, which the daemon cannot know beforehand."""
    async with client.get(f"http://{address}/healthz", headers={"Host": host}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil.example:8787", "127.0.0.1@evil.example",
     "[evil.example]", "evil.example/127.0.0.1", ":8787"],
)  # fmt: skip
async def test_a_foreign_host_is_refused(address: str, client: aiohttp.ClientSession, host: str) -> None:
    """A web page that points its own name at this machine learns nothing, not even from a path that is not there."""
    for path in ("/healthz", "/readyz", "/no/such"):
        async with client.get(f"http://{address}{path}", headers={"Host": host}) as answer:
            assert answer.status == 421
            assert "localhost" in (await answer.json())["error"]


async def test_the_name_that_is_listened_on_is_accepted(health: FakePanel, client: aiohttp.ClientSession) -> None:
    """Who configured a host name may ask by it."""
    async with running(make_app(health), "localhost:0") as bound, client.get(f"http://{bound}/healthz") as answer:
        assert answer.status == 200


async def test_a_request_without_a_host_is_served(address: str) -> None:
    """Simple health checkers speak HTTP/1.0 without Host, and no browser does."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.0 200 ")


async def test_all_addresses_can_be_listened_on(health: FakePanel, client: aiohttp.ClientSession) -> None:
    """`:port` serves every address, as a container needs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with running(make_app(health), f":{port}") as bound, client.get(f"http://127.0.0.1{bound}/healthz") as answer:
        assert answer.status == 200


async def test_a_port_in_use_is_told_with_the_setting_and_the_remedy(health: FakePanel, address: str) -> None:
    """The operator learns which setting to change and that another process has the port."""
    with pytest.raises(CannotListen, match=r"\[http\] listen.*in use.*another port") as caught:
        async with running(make_app(health), address):
            pass
    assert caught.value.exit_code == Exit.CANNOT_CREATE


async def test_a_port_that_is_not_permitted_is_told_as_such(health: FakePanel, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission has its own exit code and its own remedy."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(CannotListen, match=r"\[http\] listen.*Permission denied.*1024") as caught:
        async with running(make_app(health), "127.0.0.1:80"):
            pass
    assert caught.value.exit_code == Exit.NO_PERMISSION


@pytest.mark.parametrize(
    ("listen", "exit_code"),
    [
        ("8787", Exit.CONFIG),
        ("127.0.0.1", Exit.CONFIG),
        ("127.0.0.1:http", Exit.CONFIG),
        ("127.0.0.1:99999", Exit.CONFIG),
        ("::1:8787", Exit.CONFIG),
        ("192.0.2.1:8787", Exit.CANNOT_CREATE),
    ],
)
async def test_an_address_that_cannot_be_used_names_the_setting(
    health: FakePanel, listen: str, exit_code: Exit
) -> None:
    """What is not an address, and what is not an address of this machine, is refused by name."""
    with pytest.raises(CannotListen, match=r"\[http\] listen") as caught:
        async with running(make_app(health), listen):
            pass
    assert caught.value.exit_code == exit_code
    assert caught.value.remedy


async def test_the_port_is_free_again_afterwards(health: FakePanel) -> None:
    """A restart in the same second finds its port."""
    async with running(make_app(health), "127.0.0.1:0") as first:
        pass
    async with running(make_app(health), first) as second:
        assert second == first
