"""`tablefeed status --alive`: for health checks, by HTTP or by the ledger's lock."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from support.daemon import Site, command, running_daemon
from support.ports import free_port
from tablefeed.sandbox.server import RunningSandbox


@pytest.fixture
def site(tmp_path: Path, sandbox: RunningSandbox) -> Site:
    site = Site(tmp_path, sandbox.base_url)
    site.feed("orders")
    return site


async def alive(config: Path, **environ: str) -> tuple[int, str, str]:
    """What it says."""
    return await command("status", "--alive", "--config", str(config), environ=environ)


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
async def test_a_daemon_that_answers_lives(site: Site, host: str) -> None:
    """Silence and 0, whatever proxies the environment names; and 1 with one line when it is gone."""
    port = free_port()
    site.sections["http"] = {"listen": f"{host}:{port}"}
    config = site.config
    async with running_daemon(config) as daemon:
        await daemon.until_event("ready")
        proxies = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        assert await alive(config, **proxies) == (0, "", "")
        await daemon.end()
    assert await alive(config) == (1, "", f"tablefeed: nothing listens at 127.0.0.1:{port}\n")


async def test_a_daemon_that_hangs_does_not_live(site: Site) -> None:
    """Its port is open, but the loop turns no more."""
    port = free_port()
    site.sections["http"] = {"listen": f"127.0.0.1:{port}"}
    config = site.config
    async with running_daemon(config) as daemon:
        await daemon.until_event("ready")
        daemon.process.send_signal(signal.SIGSTOP)
        assert await alive(config) == (1, "", f"tablefeed: nothing answered at 127.0.0.1:{port} within 5 s\n")
        daemon.process.send_signal(signal.SIGCONT)


async def test_without_http_the_lock_tells(site: Site) -> None:
    """The lock is held as long as the daemon lives, however it ends."""
    config = site.config
    code, _, err = await alive(config)
    assert (code, "no daemon runs" in err) == (1, True)
    async with running_daemon(config) as daemon:
        await daemon.until_event("ready")
        assert await alive(config) == (0, "", "")
        await daemon.end(signal.SIGKILL)
    code, out, err = await alive(config)
    assert (code, out, err.count("\n"), "no daemon runs" in err) == (1, "", 1, True)


def test_in_a_fleet_no_database_is_asked_and_nothing_is_loaded_for_one(tmp_path: Path) -> None:
    """A check is as quick as beside a file, and a database that is away ends no daemon."""
    site = Site(tmp_path, "http://127.0.0.1:1")
    site.sections = {"ledger": {"url": "postgresql://me:s3cret@127.0.0.1:1/x"}, "http": {"listen": "127.0.0.1:1"}}
    program = (
        "import sys; from pathlib import Path; from tablefeed.cli.alive import why_not_alive; "
        "print(why_not_alive(Path(sys.argv[1]), {})); print({'sqlalchemy', 'psycopg'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program, site.config], capture_output=True, text=True, check=True)
    assert done.stdout == "nothing listens at 127.0.0.1:1\nset()\n"


async def test_something_else_on_the_port_is_no_daemon(site: Site) -> None:
    """A port that another program has taken answers for itself alone."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        site.sections["http"] = {"listen": f"127.0.0.1:{port}"}
        assert await alive(site.config) == (1, "", f"tablefeed: what answers at 127.0.0.1:{port} is no tablefeed\n")
    finally:
        await runner.cleanup()


async def test_a_configuration_that_has_got_an_error_since_does_not_kill(site: Site) -> None:
    """What the daemon has read it goes on with, so a wrong key is not the daemon's death."""
    config = site.config
    async with running_daemon(config) as daemon:
        await daemon.until_event("ready")
        config.write_text(config.read_text().replace("[http]", "[http]\nnonesuch = 1"))
        assert await alive(config) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "No such file"), ("[http\n", "not TOML"), ("[http]\nlisten = 8787\n", "[http] listen must be a text")],
)
async def test_where_nothing_can_be_asked_the_reason_is_told(tmp_path: Path, text: str | None, told: str) -> None:
    """In one line."""
    config = tmp_path / "tablefeed.toml"
    if text is not None:
        config.write_text(text)
    code, out, err = await alive(config)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert told in err
