"""Odd files and odd names: each is delivered whole, or left alone with a word, and harms no other."""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest
from aiohttp import web

from support.bench import bench, ended
from support.daemon import contents, rename_in, running_daemon
from support.memory import mapped
from support.stores import Server

LONG = "n" * 251 + ".csv"
LONG_UTF8 = "ä" * 125 + "x.csv"
NOT_UTF8 = os.fsdecode(b"caf\xe9.csv")
ESCAPES = "\x1b]0;own3d\x07\x1b[2J\x1b[31m.csv"
NAMES = [
    LONG,
    LONG_UTF8,
    ESCAPES,
    "two\nlines.csv",
    "\r2026-01-01 info fake.csv",
    "gpj.\u202evsc.csv",
    "a b'\"%2F&c.csv",
]


async def test_names_that_are_odd_arrive_and_the_console_stays_harmless(tmp_path: Path) -> None:
    """Each is delivered under its very name; the log escapes what could move a cursor or forge a line."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        it.site.sections |= {"log": {"format": "console", "level": "debug"}, "watch": {"rescan": "1s"}}
        for name in [*NAMES, NOT_UTF8]:
            (orders / name).write_bytes(b"content")
        async with running_daemon(it.site.config) as daemon:
            await daemon.until(lambda: daemon.log.count(" file_archived ") >= len(NAMES))
            await daemon.until(lambda: " file_rejected " in daemon.log)
            assert await daemon.end() == 0
        assert it.sent() == sorted((name, b"content") for name in NAMES)
        assert set(it.archived()) == set(NAMES)
        assert set(contents(orders / "failed")) == {NOT_UTF8, NOT_UTF8 + ".error.json"}
    for line in daemon.lines:
        assert line.removesuffix("\n").isprintable()
        assert line.startswith("20")
        assert not line.startswith("2026-01-01T00:00:00.000Z info fake")
    assert r"\x1b]0;own3d\x07" in daemon.log


@pytest.mark.parametrize("name", [LONG, LONG_UTF8], ids=["ascii", "utf-8"])
async def test_names_of_255_bytes_collide_and_are_refused_like_others(tmp_path: Path, name: str) -> None:
    """Numbers in the archive and the report in `failed/` still fit, however long the name is."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        it.site.sections["upload"] = {"max_size": "20B"}
        async with running_daemon(it.site.config) as daemon:
            for n in range(3):
                rename_in(orders, name, b"version %d" % n)
                await daemon.until_event("file_archived", n + 1)
            for n in range(2):
                rename_in(orders, name, b"far too large %d" % n * 9)
                await daemon.until_event("file_rejected", n + 1)
            assert await daemon.end() == 0
        assert sorted(it.archived().values()) == [b"version 0", b"version 1", b"version 2"]
        failed = contents(orders / "failed")
        reports = {kept: json.loads(text) for kept, text in failed.items() if kept.endswith(".error.json")}
        assert len(failed) == 4
        assert len(reports) == 2
        for kept, report in reports.items():
            assert kept.removesuffix(".error.json") in failed
            assert report["file"] == str(orders / name)
        assert it.site.dropped("orders") == set()


async def test_what_is_no_file_is_left_alone_and_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, pipes, sockets and directories with a file's name: one line each over many scans, and none is touched."""
    (tmp_path / "secret.csv").write_text("outside")
    async with bench(tmp_path) as it:
        orders = it.feed()
        it.site.sections["watch"] = {"rescan": "1s", "polling": True}
        monkeypatch.chdir(orders)  # a socket's whole path may have 107 bytes

        def make(prefix: str) -> list[str]:
            (orders / f"{prefix}-link.csv").symlink_to(tmp_path / "secret.csv")
            os.mkfifo(orders / f"{prefix}-pipe.csv")
            (orders / f"{prefix}-directory.csv").mkdir()
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(f"{prefix}-socket.csv")
            return sorted(f"{prefix}-{kind}.csv" for kind in ("link", "pipe", "directory", "socket"))

        there = make("old")
        async with running_daemon(it.site.config) as daemon:
            await it.control(daemon, orders)
            there += make("new")
            await daemon.until(lambda: len(daemon.named("not_scanned")) >= len(there))
            for _ in range(2):  # without events each takes another scan
                await it.control(daemon, orders)
            assert await daemon.end() == 0
        assert it.sent() == []
        told = {event["path"]: event["reason"] for event in daemon.named("not_scanned")}
        assert sorted(event["path"] for event in daemon.named("not_scanned")) == sorted(there)
        assert "links are not followed" in told["old-link.csv"]
        assert "pipe" in told["new-pipe.csv"]
        assert {path.name for path in orders.iterdir()} == {*there, "archive"}
        assert (tmp_path / "secret.csv").read_text() == "outside"


@pytest.mark.parametrize("archive", ["archive", "delete"])
async def test_hard_links_are_files_of_their_own(tmp_path: Path, archive: str) -> None:
    """Two names in the feed are two drops; a name outside keeps its file; a writer at that name is waited for."""
    async with bench(tmp_path) as it:
        orders = it.feed(archive=archive)
        (tmp_path / "outside.csv").write_bytes(b"half ")
        (orders / "one.csv").write_bytes(b"two names")
        os.link(orders / "one.csv", orders / "two.csv")
        with (tmp_path / "outside.csv").open("ab") as writer:
            os.link(tmp_path / "outside.csv", orders / "inside.csv")
            async with running_daemon(it.site.config) as daemon:
                await daemon.until(ended(daemon, "one.csv", "two.csv"))
                await it.control(daemon, orders)
                assert [name for name, _ in it.sent()] == ["one.csv", "two.csv"]
                writer.write(b"and whole")
                writer.close()
                await daemon.until(ended(daemon, "inside.csv"))
                assert await daemon.end() == 0
        sent = {"one.csv": b"two names", "two.csv": b"two names", "inside.csv": b"half and whole"}
        assert it.sent() == sorted(sent.items())
        assert (it.archived() if archive == "archive" else sent) == sent
        assert it.site.dropped("orders") == set()
        assert (tmp_path / "outside.csv").read_bytes() == b"half and whole"


WRITER = """
import os, sys, time
for part in range(5):
    print(time.time(), flush=True)
    with open(sys.argv[1], "a") as file:
        file.write(f"part {part} ")
    os.utime(sys.argv[1], (1, 1))
    print(time.time(), flush=True)
    time.sleep(0.3)
"""
"""Opens and closes a file five times, gives it an old mtime each time, and prints when it began and ended."""


async def test_old_times_and_a_writer_that_comes_back_hasten_nothing(tmp_path: Path) -> None:
    """`cp -p` gives old mtimes, and a writer opens and closes: what is sent has lain still for `settle`."""
    settle = 1.0
    async with bench(tmp_path) as it:
        orders = it.feed(settle=f"{settle}s")
        (tmp_path / "origin.csv").write_bytes(b"copied with its times")
        os.utime(tmp_path / "origin.csv", (1, 1))
        async with running_daemon(it.site.config) as daemon:
            await daemon.until_event("ready")
            writer = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", WRITER, orders / "parts.csv"), stdout=asyncio.subprocess.PIPE
            )
            copying = await asyncio.create_subprocess_exec("cp", "-p", tmp_path / "origin.csv", orders / "copied.csv")
            assert await copying.wait() == 0
            copied_at = (orders / "copied.csv").stat().st_ctime
            parts = [b"".join(b"part %d " % part for part in range(count)) for count in range(1, 6)]
            await daemon.until(lambda: ("parts.csv", parts[-1]) in it.sent() and ended(daemon, "copied.csv")())
            stamps = [float(line) for line in (await writer.communicate())[0].split()]
            assert await daemon.end() == 0
    assert daemon.moments("upload_started", "copied.csv")[0] >= copied_at + settle
    assert daemon.moments("upload_started", "parts.csv")[-1] >= stamps[-1] + settle
    # On a loaded machine the writer may have rested for longer than `settle` between two parts.
    rests = zip(parts, stamps[1::2], [*stamps[2::2], float("inf")], strict=True)
    rested = [part for part, closed, opened in rests if opened - closed > settle]
    assert [body for name, body in it.sent() if name == "parts.csv"] == rested


async def test_a_placeholder_is_not_sent_before_it_is_filled(tmp_path: Path) -> None:
    """An empty file waits; filled it is sent once; one that stays empty past `empty_after` is set aside."""
    async with bench(tmp_path) as it:
        orders, others = it.feed(), it.feed("others", empty_after="500ms")
        (orders / "placeholder.csv").touch()
        (others / "never-filled.csv").touch()
        async with running_daemon(it.site.config) as daemon:
            await it.control(daemon, orders)
            await daemon.until_event("file_rejected")
            assert it.site.dropped("orders") == {"placeholder.csv"}
            (orders / "placeholder.csv").write_bytes(b"filled")
            await daemon.until(ended(daemon, "placeholder.csv"))
            assert await daemon.end() == 0
        assert it.sent() == [("placeholder.csv", b"filled")]
        failed = contents(others / "failed")
        assert failed["never-filled.csv"] == b""
        assert "empty_after" in json.loads(failed["never-filled.csv.error.json"])["reason"]


async def test_a_writer_that_maps_its_file_is_waited_for(tmp_path: Path) -> None:
    """MAP_SHARED, with the descriptor closed: nobody has the file open, but the kernel knows the writer."""
    async with bench(tmp_path) as it:
        orders = it.feed()
        (orders / "mapped.csv").write_bytes(b"-" * 100)
        async with running_daemon(it.site.config) as daemon:
            with mapped(orders / "mapped.csv") as memory:
                await it.control(daemon, orders)
                await it.control(daemon, orders)
                assert it.sent() == []
                memory[:] = b"+" * 100
            await daemon.until(ended(daemon, "mapped.csv"))
            assert await daemon.end() == 0
        assert it.sent() == [("mapped.csv", b"+" * 100)]


async def test_a_name_that_is_dropped_again_and_again_is_delivered_in_its_last_version(tmp_path: Path) -> None:
    """Ten drops in a second, most while one is sent: whole versions arrive, none twice, and the last one surely."""

    async def slow(server: Server, request: web.Request, body: bytes) -> web.StreamResponse:
        await asyncio.sleep(0.15)  # the store's pace
        return server.take(request, body)

    async with bench(tmp_path, slow) as it:
        orders = it.feed(settle="20ms")
        it.site.sections["watch"] = {"rescan": "1h"}
        versions = [b"version %d\n" % n * (n + 1) for n in range(10)]
        async with running_daemon(it.site.config) as daemon:
            await it.watched(daemon, orders)
            for content in versions:
                rename_in(orders, "orders.csv", content)
                await asyncio.sleep(0.1)  # the producer's pace
            await daemon.until(lambda: versions[-1] in it.archived().values())
            await it.control(daemon, orders)
            assert await daemon.end() == 0
        bodies = [body for _, body in it.sent()]
        assert len(bodies) == len(set(bodies))
        assert set(bodies) <= set(versions)
        assert set(it.archived().values()) <= set(bodies)
        assert it.site.dropped("orders") == set()
