"""How people find out what happened, and recover: `tablefeed history` and `tablefeed retry`."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from support.daemon import Site, command, running_daemon
from tablefeed.sandbox.server import RunningSandbox


async def history(site: Site, *arguments: str) -> list[dict[str, Any]]:
    """What `history --json` tells."""
    code, out, err = await command("history", "--config", str(site.config), "--json", *arguments)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()]


async def deliver_once(site: Site, code: int = 0) -> None:
    """One pass, with its exit code."""
    async with running_daemon(site.config, "--once") as daemon:
        assert await daemon.process.wait() == code, daemon.log


async def refuse_two(site: Site) -> Path:
    """A feed with one delivered file and two that are too large."""
    orders = site.feed("orders")
    site.sections["upload"] = {"max_size": "10B"}
    (orders / "fits.csv").write_text("fits")
    for name in ("one.csv", "two.csv"):
        (orders / name).write_text(f"{name} is much too large")
    await deliver_once(site, 1)
    return orders


async def test_history_shows_what_happened_to_each_file(site: Site, sandbox: RunningSandbox) -> None:
    """A line each, the latest last, with the reason and the place; while the daemon runs and after."""
    orders = await refuse_two(site)
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        code, out, err = await command("history", "--config", str(site.config))
        assert (code, err) == (0, "")
        assert await daemon.end() == 0
    lines = out.splitlines()
    assert lines[0].split() == ["ID", "WHEN", "FEED", "STATE", "SIZE", "FILE", "WHAT"]
    assert len(lines) == 4
    [line] = [line for line in lines if "fits.csv" in line]
    assert "archived" in line
    assert str(orders / "archive" / "fits.csv") in line
    [line] = [line for line in lines if "one.csv" in line]
    assert "rejected" in line
    assert "10" in line.partition("one.csv")[2]


async def test_history_is_searched_by_feed_state_and_time(site: Site, sandbox: RunningSandbox) -> None:
    """Only what fits is shown, and that nothing fits is said."""
    await refuse_two(site)
    (site.feed("other") / "x.csv").write_text("x")
    await deliver_once(site)
    assert {it["path"] for it in await history(site, "--feed", "orders")} == {"fits.csv", "one.csv", "two.csv"}
    assert {it["path"] for it in await history(site, "--state", "rejected")} == {"one.csv", "two.csv"}
    assert len(await history(site, "--since", "1h")) == 4
    assert await history(site, "--since", "2100-01-01") == []
    assert len(await history(site, "--limit", "2")) == 2
    code, out, err = await command("history", "--config", str(site.config), "--feed", "nonesuch")
    assert (code, out) == (0, "")
    assert "no feed nonesuch" in err
    code, out, err = await command("history", "--config", str(site.config), "--limit", "1")
    assert "3 older ones are not shown" in err
    code, _, err = await command("history", "--config", str(site.config), "--since", "tomorrow")
    assert code == 2
    assert "--since" in err


async def test_history_holds_the_receipt_and_no_secret(site: Site, sandbox: RunningSandbox) -> None:
    """All that proves a delivery is there for scripts; grants are not."""
    (site.feed("orders") / "a.csv").write_text("content")
    await deliver_once(site)
    [record] = await history(site)
    assert record["state"] == "archived"
    assert record["md5"] == "9a0364b9e99bb480dd25e1f0284c8555"
    assert (record["status"], record["verified"], record["size"]) == (200, True, 7)
    assert record["closed_at"].endswith("Z")
    assert not any("grant" in name for name in record)


async def test_a_name_with_commands_for_a_terminal_is_shown_as_text(site: Site, sandbox: RunningSandbox) -> None:
    """Also one with a newline or with bytes that are not UTF-8, in one line each."""
    orders = site.feed("orders")
    for name in (b"esc\x1b[31m.csv", b"new\nline.csv", b"caf\xe9.csv"):
        Path(os.fsdecode(bytes(orders) + b"/" + name)).write_text("content")
    await deliver_once(site, 1)
    code, out, _ = await command("history", "--config", str(site.config))
    assert code == 0
    assert "\x1b" not in out
    assert len(out.splitlines()) == 4
    assert r"esc\x1b[31m.csv" in out
    assert r"new\nline.csv" in out
    assert r"caf\xe9.csv" in out


async def test_a_refused_file_is_tried_again(site: Site, sandbox: RunningSandbox) -> None:
    """Once its cause is mended it goes its whole way, with the daemon running, and its report is gone."""
    orders = await refuse_two(site)
    site.sections["upload"] = {"max_size": "1KiB"}
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        code, out, err = await command("retry", "--config", str(site.config), "--feed", "orders")
        assert (code, err) == (0, "")
        assert "2 files put back" in out
        await daemon.until_event("file_archived", 2)
        assert await daemon.end() == 0
    assert set(site.archived("orders")) == {"fits.csv", "one.csv", "two.csv"}
    assert [*(orders / "failed").iterdir()] == []
    code, out, _ = await command("retry", "--config", str(site.config), "--all")
    assert (code, out) == (0, "No refused file is there.\n")


async def test_a_file_is_tried_again_by_its_id_and_the_others_stay(site: Site, sandbox: RunningSandbox) -> None:
    """Without a daemon too: the next start takes it."""
    orders = await refuse_two(site)
    ids = {it["path"]: str(it["id"]) for it in await history(site)}
    site.sections["upload"] = {"max_size": "1KiB"}
    code, out, _ = await command("retry", "--config", str(site.config), ids["one.csv"])
    assert code == 0
    assert "orders/one.csv is tried again" in out
    await deliver_once(site)
    assert set(site.archived("orders")) == {"fits.csv", "one.csv"}
    assert (orders / "failed" / "two.csv").exists()


async def test_what_cannot_be_tried_again_is_told_and_the_rest_is(site: Site, sandbox: RunningSandbox) -> None:
    """A wrong id, a delivered file, a file that is gone, a name that is used again: one line each, and exit code 1."""
    orders = await refuse_two(site)
    ids = {it["path"]: str(it["id"]) for it in await history(site)}
    (orders / "one.csv").write_text("new one")
    (orders / "failed" / "two.csv").unlink()
    code, out, err = await command("retry", "--config", str(site.config), "999", *ids.values())
    assert code == 1
    assert "0 files put back" in out
    told = dict(line.split(": ", 1) for line in err.splitlines())
    assert told["999"] == "there is no such file in the ledger"
    assert told[ids["fits.csv"]] == "orders/fits.csv is archived; only rejected files can be tried again"
    assert "is there again" in told[ids["one.csv"]]
    assert "is not there any more" in told[ids["two.csv"]]


@pytest.mark.parametrize("arguments", [[], ["--all", "1"], ["--feed", "orders", "--all"], ["--feed", "nonesuch"]])
async def test_retry_wants_to_know_which(site: Site, arguments: list[str]) -> None:
    """One of ids, a feed of the configuration, or all."""
    site.feed("orders")
    code, _, err = await command("retry", "--config", str(site.config), *arguments)
    assert code == 2
    assert "--all" in err or "no feed nonesuch; it has orders" in err


@pytest.mark.parametrize("name", ["history", "retry"])
async def test_a_ledger_that_is_not_there_or_not_known_is_named(site: Site, name: str) -> None:
    """One line each, and nothing is made or changed."""
    site.feed("orders")
    arguments = [name, "--config", str(site.config), *(["--all"] if name == "retry" else [])]
    code, _, err = await command(*arguments)
    assert code == 73
    assert "there is no ledger" in err
    assert not site.ledger.exists()
    with sqlite3.connect(site.ledger) as raw:
        raw.execute("CREATE TABLE alembic_version (version_num TEXT)")
        raw.execute("INSERT INTO alembic_version VALUES ('9999')")
    code, _, err = await command(*arguments)
    assert code == 73
    assert "written by another version" in err
    site.ledger.write_bytes(b"no database at all" * 100)
    code, _, err = await command(*arguments)
    assert code == 73
    assert "damaged" in err
    assert "Traceback" not in err
