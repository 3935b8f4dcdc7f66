"""`tablefeed push`: files are delivered now, and only read."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from support.daemon import Site, command, contents
from support.stores import Server, serving
from support.terminal import on_terminal
from tablefeed.sandbox.server import RunningSandbox


@pytest.fixture
def site(tmp_path: Path, sandbox: RunningSandbox) -> Site:
    site = Site(tmp_path, sandbox.base_url)
    site.feed("orders")
    return site


async def test_files_are_delivered_and_stay(site: Site, sandbox: RunningSandbox, tmp_path: Path) -> None:
    """One line each with what proves it; without a terminal there are no bars and no colours."""
    files = [tmp_path / f"{n}.csv" for n in range(3)]
    for file in files:
        file.write_text(f"content of {file.name}")
    code, out, err = await command("push", *map(str, files), "--feed", "orders", "--config", str(site.config))
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert out.count("checksum confirmed by the store") == 3
    assert out.endswith("3 files delivered.\n")
    assert sorted(contents(sandbox.objects).values()) == sorted(file.read_bytes() for file in files)


async def test_what_cannot_be_delivered_is_named_and_the_rest_is(
    site: Site, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    """The exit code tells that something was not."""
    (tmp_path / "a.csv").write_text("content")
    missing = tmp_path / "missing.csv"
    code, out, err = await command(
        "push", str(tmp_path / "a.csv"), str(missing), "--feed", "orders", "--config", str(site.config)
    )
    assert code == 1
    assert err == f"{missing}: No such file or directory\n"
    assert out.endswith("1 file delivered, 1 not.\n")


async def test_a_refused_key_is_named_by_the_file_that_it_comes_from(site: Site, tmp_path: Path) -> None:
    """What is to be mended is a file, whatever the library calls it, and its content is not told."""
    (tmp_path / "api-key").write_text("wr0ng-key")
    (tmp_path / "a.csv").write_text("content")
    code, out, err = await command("push", str(tmp_path / "a.csv"), "--feed", "orders", "--config", str(site.config))
    assert code == 1
    assert f"Check the key in file {tmp_path / 'api-key'}" in err
    assert "wr0ng" not in out + err


async def test_a_feed_that_is_not_there_is_a_usage_error(site: Site) -> None:
    """It names those that are."""
    code, _, err = await command("push", "a.csv", "--feed", "nonesuch", "--config", str(site.config))
    assert code == 2
    assert "no feed nonesuch; it has orders" in err


async def pushed(root: Path, server: Server) -> int:
    """Push one file to this server; the exit code."""
    async with serving(server) as origin:
        site = Site(root, origin)
        site.feed("orders", dataset_id="d")
        (root / "a.csv").write_text("content")
        code, *_ = await command("push", str(root / "a.csv"), "--feed", "orders", "--config", str(site.config))
    return code


async def test_a_lost_reply_is_followed_by_the_same_object(tmp_path: Path) -> None:
    """What may pass is tried again, and no second object is made."""

    async def lose_first(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = server.take(request, body)
        if len(server.puts) == 1 and request.transport is not None:
            request.transport.abort()
        return answer

    server = Server(lose_first)
    assert await pushed(tmp_path, server) == 0
    assert server.puts == ["/object/1", "/object/1"]


async def test_a_url_that_has_expired_is_followed_by_another(tmp_path: Path) -> None:
    """A store may be away for longer than a URL lives: that fails no file."""

    async def expired_first(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        if len(server.puts) == 1:
            said = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            return web.Response(status=403, text=said)
        return server.take(request, body)

    server = Server(expired_first)
    assert await pushed(tmp_path, server) == 0
    assert server.puts == ["/object/1", "/object/2"]


async def test_bars_are_for_the_terminal_and_the_output_for_the_file(tmp_path: Path) -> None:
    """Whatever a name holds: brackets are no markup, and nothing in it is a command to the terminal."""
    seen = asyncio.Event()

    async def wait_for_the_bar(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        await seen.wait()
        return server.take(request, body)

    file = tmp_path / "odd [red] \x1b[2Jname.csv"
    file.write_text("content")
    async with serving(Server(wait_for_the_bar)) as origin:
        site = Site(tmp_path, origin)
        site.feed("orders", dataset_id="d")
        arguments = ["push", str(file), "--feed", "orders", "--config", str(site.config)]
        with (tmp_path / "out").open("wb") as out:
            async with on_terminal(*arguments, stdout=out) as terminal:
                await terminal.until(r"odd [red] \x1b[2Jname.csv")
                seen.set()
                assert await terminal.ended() == 0
    assert [line.split(": ")[-1][:7] for line in (tmp_path / "out").read_text().splitlines()] == ["7B deli", "1 file "]
