"""Bad input and bad surroundings: each gives one clear message and the right exit code or state, and loses nothing."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from support.daemon import (
    KEY,
    Site,
    as_a_user,
    bound_by_permissions,
    clean_environ,
    command,
    contents,
    running_daemon,
)
from support.patience import PATIENCE
from tablefeed.sandbox.server import RunningSandbox


def assert_clear(text: str, *words: str) -> None:
    """A message without traceback or key that names what it must name."""
    assert "Traceback" not in text
    assert KEY not in text
    for word in words:
        assert word in text, f"{word!r} is not in:\n{text}"


async def test_all_errors_of_a_configuration_come_at_once(site: Site) -> None:
    """Each with its place and what would be right; exit code 78."""
    site.feed("orders", setle="2s", order="random", concurrency=-1)
    site.sections = {"upload": {"stall_timeout": "soon", "max_size": "6GiB"}, "logs": {"level": "info"}}
    code, _, err = await command("run", "--config", str(site.config))
    assert code == 78
    assert_clear(err, "feeds[0] (orders).setle", "settle", "order", "concurrency", "upload.stall_timeout", "30s")
    assert_clear(err, "upload.max_size", "logs", "6 errors:")


@pytest.mark.parametrize("name", ["run", "check"])
async def test_no_configuration_names_the_places_that_were_looked_at(name: str, tmp_path: Path) -> None:
    """And a named file that is not there is named."""
    code, _, err = await command(name, "--config", str(tmp_path / "nothing.toml"))
    assert code == 78
    assert_clear(err, "nothing.toml")
    code, _, err = await command(name)
    assert code == 78
    assert_clear(err, "--config", "TABLEFEED_CONFIG", "/etc/tablefeed/tablefeed.toml")


async def test_a_wrong_command_line_is_a_usage_error() -> None:
    """Exit code 2, and a word on what is right."""
    for arguments in (["run", "--nonsense"], ["nonsense"], ["sandbox", "--listen", "here"]):
        code, _, err = await command(*arguments)
        assert code == 2
        assert_clear(err)
    assert "127.0.0.1:8800" in err


async def test_a_refused_key_pauses_the_feed_loudly_once_and_the_next_key_resumes_it(
    site: Site, sandbox: RunningSandbox
) -> None:
    """The files stay; the key's file is read again, and nobody need restart anything."""
    orders = site.feed("orders")
    (orders / "a.csv").write_bytes(b"a")
    config = site.config
    (site.root / "api-key").write_text("wr0ng-key")
    async with running_daemon(config) as daemon:
        await daemon.until(lambda: len(daemon.named("feed_paused")) >= 3)
        loud = [event for event in daemon.named("feed_paused") if event["level"] == "error"]
        assert len(loud) == 1
        assert_clear(json.dumps(loud[0]), "orders", "api-key", "Check the key")
        assert site.dropped("orders") == {"a.csv"}
        (site.root / "api-key").write_text(KEY)
        await daemon.until_event("file_archived")
        assert daemon.named("feed_resumed")
        assert await daemon.end() == 0
    assert "wr0ng-key" not in daemon.log
    assert daemon.named("file_rejected") == []


async def test_an_unknown_datatable_pauses_that_feed_alone(site: Site, sandbox: RunningSandbox) -> None:
    """One bad thing stops only itself."""
    bad = site.feed("bad", datatable_id="no-such-table")
    good = site.feed("good")
    for n in range(5):
        (bad / f"{n}.csv").write_bytes(b"bad")
        (good / f"{n}.csv").write_bytes(b"good")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("file_archived", 5)
        await daemon.until_event("feed_paused")
        assert await daemon.end() == 0
    assert_clear(json.dumps(daemon.named("feed_paused")), "no-such-table")
    assert site.dropped("good") == set()
    assert len(site.dropped("bad")) == 5


async def test_a_missing_directory_is_reported_and_used_once_it_is_there(site: Site, sandbox: RunningSandbox) -> None:
    """The daemon starts, the other feeds go on, and nobody need restart it."""
    missing, good = site.feed("missing"), site.feed("good")
    missing.rmdir()
    (good / "a.csv").write_bytes(b"good")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("directory_unusable")
        await daemon.until_event("file_archived")
        assert_clear(json.dumps(daemon.named("directory_unusable")), str(missing))
        missing.mkdir()
        (missing / "b.csv").write_bytes(b"late")
        await daemon.until_event("file_archived", 2)
        assert daemon.named("directory_usable_again")
        assert await daemon.end() == 0


async def ended_without_override(config: Path, *arguments: str) -> tuple[int, str]:
    """`tablefeed run`, by root without the rights that permissions do not bind, else by this user."""
    process = await asyncio.create_subprocess_exec(
        *bound_by_permissions(),
        *(sys.executable, "-m", "tablefeed", "run", "--config", str(config), *arguments),
        env=clean_environ(),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(100):
        _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


@as_a_user
async def test_a_directory_that_is_not_writable_keeps_its_file_and_says_so(site: Site, sandbox: RunningSandbox) -> None:
    """Delivered and not moved: the feed waits for the permission, and nothing is sent again after it."""
    orders = site.feed("orders")
    (orders / "a.csv").write_bytes(b"a")
    orders.chmod(0o555)
    code, err = await ended_without_override(site.config, "--once")
    assert code == 1
    assert_clear(err, str(orders), "write")
    assert site.dropped("orders") == {"a.csv"}
    orders.chmod(0o755)
    code, err = await ended_without_override(site.config, "--once")
    assert code == 0
    assert site.archived("orders") == {"a.csv": b"a"}
    assert len(contents(sandbox.objects)) == 1


@as_a_user
async def test_a_file_that_may_not_be_read_waits_and_is_named(site: Site, sandbox: RunningSandbox) -> None:
    """It may only have been written a moment ago, so it gets time; the others are delivered."""
    orders = site.feed("orders")
    (orders / "closed.csv").write_bytes(b"a")
    (orders / "closed.csv").chmod(0)
    (orders / "open.csv").write_bytes(b"b")
    code, err = await ended_without_override(site.config, "--once")
    assert code == 1
    assert_clear(err, "closed.csv", "may not be read")
    assert set(site.archived("orders")) == {"open.csv"}
    assert site.dropped("orders") == {"closed.csv"}


async def test_a_file_that_is_too_large_is_set_aside_with_its_reason(site: Site, sandbox: RunningSandbox) -> None:
    """`failed/` gets the file and a readable reason; the others are delivered."""
    orders = site.feed("orders")
    site.sections["upload"] = {"max_size": "1KiB"}
    (orders / "large.csv").write_bytes(b"x" * 2000)
    (orders / "small.csv").write_bytes(b"x")
    (orders / "large.csv").chmod(0o640)
    code, _, err = await command("run", "--once", "--config", str(site.config))
    assert code == 1
    assert_clear(err, "large.csv", "max_size")
    assert set(site.archived("orders")) == {"small.csv"}
    assert set(contents(orders / "failed")) == {"large.csv", "large.csv.error.json"}
    reason = orders / "failed" / "large.csv.error.json"
    assert_clear(reason.read_text(), "large.csv", "reason", "remedy")
    assert stat.S_IMODE(reason.stat().st_mode) & ~0o640 == 0


async def test_a_port_in_use_is_named_with_its_setting(site: Site) -> None:
    """Exit code 73, before anything is delivered."""
    orders = site.feed("orders")
    (orders / "a.csv").write_bytes(b"a")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        site.sections["http"] = {"listen": address}
        code, _, err = await command("run", "--config", str(site.config))
        assert code == 73
        assert_clear(err, address, "[http] listen")
        code, _, err = await command("sandbox", "--listen", address, "--data", str(site.root / "d"))
        assert code == 73
        assert_clear(err, address, "--listen")
    assert site.dropped("orders") == {"a.csv"}


async def test_a_second_daemon_on_the_same_ledger_is_turned_away(site: Site) -> None:
    """Exit code 73, and the first one's process is named."""
    site.feed("orders")
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        code, _, err = await command("run", "--config", str(site.config))
        assert code == 73
        assert_clear(err, str(site.ledger), str(daemon.process.pid))
        code, out, _ = await command("check", "--config", str(site.config))
        assert code == 0, out
        assert await daemon.end() == 0


async def test_a_corrupt_ledger_is_left_alone_and_named(site: Site) -> None:
    """Exit code 73, the remedy, and no file touched."""
    orders = site.feed("orders")
    (orders / "a.csv").write_bytes(b"a")
    site.ledger.write_bytes(b"garbage" * 1000)
    for name in ("run", "check"):
        code, out, err = await command(name, "--config", str(site.config))
        assert code == 73
        assert_clear(out + err, str(site.ledger), "Move it aside")
    assert site.ledger.read_bytes() == b"garbage" * 1000
    assert site.dropped("orders") == {"a.csv"}


async def test_once_delivers_what_is_there(site: Site, sandbox: RunningSandbox) -> None:
    """Exit code 0 when all was delivered, and again when there is nothing."""
    orders = site.feed("orders")
    for n in range(10):
        (orders / f"{n}.csv").write_bytes(b"%d" % n)
    for _ in range(2):
        code, _, err = await command("run", "--once", "--config", str(site.config))
        assert code == 0, err
    assert len(contents(sandbox.objects)) == 10


@pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
async def test_once_ends_well_where_standard_streams_are_closed(
    site: Site, sandbox: RunningSandbox, closed: str
) -> None:
    """What gets the number of a closed stream, such as a connection, ends nobody when it is closed."""
    (site.feed("orders") / "a.csv").write_bytes(b"a")
    run = (sys.executable, "-m", "tablefeed", "run", "--once", "--config", str(site.config))
    process = await asyncio.create_subprocess_exec("sh", "-c", f'exec "$@" {closed}', "sh", *run, env=clean_environ())
    assert await process.wait() == 0
    assert site.archived("orders") == {"a.csv": b"a"}


async def test_once_tells_what_it_left(site: Site, sandbox: RunningSandbox) -> None:
    """A file that waits for its marker, and a feed whose datatable is unknown: exit code 1, each with its reason."""
    (site.feed("marked", ready="marker") / "unmarked.csv").write_bytes(b"a")
    (site.feed("bad", datatable_id="no-such-table") / "b.csv").write_bytes(b"b")
    (site.feed("good") / "c.csv").write_bytes(b"c")
    code, _, err = await command("run", "--once", "--config", str(site.config))
    assert code == 1
    told = [line for line in err.splitlines() if '"not_delivered"' in line]
    assert_clear("\n".join(told), "unmarked.csv", "marker", "b.csv", "no-such-table")
    assert json.loads(err.splitlines()[-1])["event"] == "pass_ended"
    assert set(site.archived("good")) == {"c.csv"}


async def test_a_second_signal_ends_at_once(site: Site, sandbox: RunningSandbox) -> None:
    """An upload that hangs does not hold the operator up."""
    orders = site.feed("orders")
    site.sections["service"] = {"shutdown_grace": "10m"}
    with (orders / "a.csv").open("wb") as file:
        file.truncate(2 * 2**30)
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("upload_started")
        daemon.process.send_signal(signal.SIGINT)
        await daemon.until_event("draining")
        assert await daemon.end(signal.SIGINT) == 0
        assert daemon.named("uploads_cut_off")
    assert site.dropped("orders") == {"a.csv"}


async def test_check_shows_all_that_is_well(site: Site) -> None:
    """Tenant, organization, datasets, and for each feed the datatable's name."""
    site.feed("orders")
    code, out, err = await command("check", "--config", str(site.config))
    assert code == 0, out + err
    assert_clear(
        out, "tenant-123", "organization", "dataset-1", "orders", "table-456", "Purchase orders", "All is well"
    )


async def test_check_says_how_to_mend_each_thing(site: Site) -> None:
    """Several things that are wrong are all told, each with its remedy."""
    site.feed("lost").rmdir()
    site.feed("bad", datatable_id="no-such-table")
    site.feed("elsewhere", dataset_id="dataset-2")
    code, out, err = await command("check", "--config", str(site.config))
    assert code == 78
    assert_clear(out + err, str(site.root / "drop" / "lost"), "no-such-table", "dataset-2", "3 things are wrong")


async def test_check_tells_of_feeds_that_share_a_directory_by_a_link(site: Site) -> None:
    """The configuration shows two directories; what each feed would get is left to chance."""
    orders = site.feed("orders")
    link = site.root / "linked"
    link.symlink_to(orders)
    site.feeds["again"] = site.feeds["orders"] | {"directory": str(link)}
    site.feeds["others"] = site.feeds["again"] | {"include": ["*.txt"]}
    site.feeds["others"]["directory"] += "/"
    code, out, err = await command("check", "--config", str(site.config))
    assert code == 78
    assert_clear(out + err, "feeds orders and again take the same files", str(link), "1 thing")


async def test_check_tells_a_refused_key_from_an_api_that_is_away(site: Site) -> None:
    """78 for what the configuration must change, 69 for what is down."""
    site.feed("orders")
    config = site.config
    (site.root / "api-key").write_text("wr0ng-key")
    code, out, _ = await command("check", "--config", str(config))
    assert code == 78
    assert_clear(out, "api-key")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        site.base_url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    code, out, _ = await command("check", "--config", str(site.config))
    assert code == 69
    assert_clear(out, site.base_url, "refused")


async def test_health_is_told_over_http(site: Site) -> None:
    """`/healthz` while the loop turns, `/readyz` with the reason when a directory is away."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    orders = site.feed("orders")
    site.sections["http"] = {"listen": address}
    async with running_daemon(site.config) as daemon, aiohttp.ClientSession() as session:
        await daemon.until_event("ready")
        for path in ("healthz", "readyz"):
            async with session.get(f"http://{address}/{path}") as answer:
                assert answer.status == 200
        orders.rmdir()
        await daemon.until_event("directory_unusable")
        async with session.get(f"http://{address}/readyz") as answer:
            assert answer.status == 503
            assert str(orders) in await answer.text()
        assert await daemon.end() == 0


async def test_settings_come_from_the_environment_alone(site: Site, sandbox: RunningSandbox) -> None:
    """A sidecar needs no file."""
    orders = site.feed("orders")
    (orders / "a.csv").write_bytes(b"a")
    environ = {
        "TABLEFEED_API__BASE_URL": sandbox.base_url,
        "TABLEFEED_API__TENANT_ID": "tenant-123",
        "TABLEFEED_API_KEY": KEY,
        "TABLEFEED_FEEDS": json.dumps([{"name": "orders", **site.feeds["orders"]}]),
        "TABLEFEED_LEDGER__URL": f"sqlite:///{site.ledger}",
        "TABLEFEED_PORT": "tcp://10.0.0.1:8787",
    }
    code, _, err = await command("run", "--once", environ=environ)
    assert code == 0, err
    assert site.archived("orders") == {"a.csv": b"a"}


async def test_the_demo_ends_when_all_is_archived() -> None:
    """`demo --once` needs nothing, delivers all its exports, and leaves nothing behind."""
    before = set(Path("/tmp").glob("tablefeed-demo-*"))  # noqa: S108 - where the demo works
    code, out, err = await command("demo", "--once", environ={"TABLEFEED_LOG__LEVEL": "nonsense"})
    assert code == 0, out + err
    assert_clear(out, "6 of 6 exports are archived", "the store holds 6 objects, byte for byte the same")
    assert set(Path("/tmp").glob("tablefeed-demo-*")) <= before  # noqa: S108


async def test_help_and_version_are_there() -> None:
    """Every command explains itself."""
    code, out, _ = await command("--version")
    assert (code, out.split()[0]) == (0, "tablefeed")
    for name in ("run", "check", "sandbox", "demo"):
        code, out, _ = await command(name, "--help")
        assert code == 0
        assert len(out) > 200


async def test_systemd_is_told_when_the_daemon_is_ready_alive_and_stopping(site: Site, tmp_path: Path) -> None:
    """READY comes after the ledger is open and the scans have begun, then signs of life, then STOPPING."""
    site.feed("orders")
    said: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)

        async def listen() -> None:
            while True:
                said.append((await asyncio.get_running_loop().sock_recv(listener, 4096)).decode())

        listening = asyncio.create_task(listen())
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        async with running_daemon(site.config, environ=environ) as daemon:
            await daemon.until_event("ready")
            async with asyncio.timeout(PATIENCE):
                while said.count("WATCHDOG=1") < 3:
                    await asyncio.sleep(0)
            assert await daemon.end() == 0
        listening.cancel()
    assert "READY=1" in said
    stopping = [message.splitlines()[0] for message in said].index("STOPPING=1")
    assert said.index("READY=1") < stopping


async def test_sigterm_ends_it_as_process_1_while_it_still_starts(site: Site) -> None:
    """The kernel throws away what process 1 of a container does not handle, so that only SIGKILL would end it."""
    site.feed("orders")
    prefix = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if not _works(*prefix, "true"):
        pytest.skip("no PID namespaces can be made here")
    async with running_daemon(site.config, prefix=prefix) as daemon:
        child = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
        async with asyncio.timeout(PATIENCE):
            while not (inner := child.read_text().split()) or not _handles_sigterm(int(inner[0])):
                await asyncio.sleep(0)
        assert daemon.events == [], "it had said something already, so it was not early"
        os.kill(int(inner[0]), signal.SIGTERM)
        assert await daemon.death() == 128 + signal.SIGTERM


def _works(*command: str) -> bool:
    return subprocess.run(command, check=False).returncode == 0


def _handles_sigterm(process: int) -> bool:
    status = Path(f"/proc/{process}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)


async def test_the_sandbox_names_a_data_directory_that_cannot_be_used() -> None:
    """One line and exit code 73."""
    code, _, err = await command("sandbox", "--listen", "127.0.0.1:0", "--data", "/proc/nowhere")
    assert code == 73
    assert_clear(err, "--data", "/proc/nowhere")


async def test_check_tells_of_a_port_that_the_daemon_could_not_have(site: Site) -> None:
    """One in use may be the daemon's own; one of another machine never works."""
    site.feed("orders")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        site.sections["http"] = {"listen": f"127.0.0.1:{other.getsockname()[1]}"}
        code, out, _ = await command("check", "--config", str(site.config))
        assert code == 0
        assert_clear(out, "note", "[http] listen")
    site.sections["http"] = {"listen": "192.0.2.1:8787"}
    code, out, _ = await command("check", "--config", str(site.config))
    assert code == 73
    assert_clear(out, "192.0.2.1")


@as_a_user
async def test_a_configuration_that_may_not_be_read_is_named(site: Site) -> None:
    """Exit code 77 and the remedy."""
    site.feed("orders")
    site.config.chmod(0)
    code, err = await ended_without_override(site.root / "tablefeed.toml")
    assert code == 77
    assert_clear(err, "tablefeed.toml")


async def test_a_refused_file_that_cannot_be_set_aside_yet_is_set_aside_later(
    site: Site, sandbox: RunningSandbox
) -> None:
    """It stays where it is, is not sent, and goes to `failed/` once that can be made."""
    orders = site.feed("orders")
    site.sections["upload"] = {"max_size": "1KiB"}
    (orders / "large.csv").write_bytes(b"x" * 2000)
    (orders / "failed").write_text("in the way")
    code, _, err = await command("run", "--once", "--config", str(site.config))
    assert code == 1
    assert_clear(err, "is not a directory", str(orders / "failed"))
    assert "large.csv" in site.dropped("orders")
    (orders / "failed").unlink()
    code, _, _ = await command("run", "--once", "--config", str(site.config))
    assert code == 1
    assert set(contents(orders / "failed")) == {"large.csv", "large.csv.error.json"}
    code, _, _ = await command("run", "--once", "--config", str(site.config))
    assert code == 0
