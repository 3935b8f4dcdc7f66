"""Sample exports for the demo: purchase-to-pay event logs, written in the three ways in which exports are written."""

import asyncio
import csv
import io
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

_ACTIVITIES = (
    ("Create purchase requisition", "R. Okafor"),
    ("Approve purchase requisition", "M. Lindqvist"),
    ("Create purchase order", "S. Haddad"),
    ("Send purchase order", "SYSTEM"),
    ("Record goods receipt", "Warehouse 7"),
    ("Record invoice receipt", "T. Nakamura"),
    ("Clear invoice", "SYSTEM"),
)
_DETOURS = (("Change price", "S. Haddad"), ("Change quantity", "S. Haddad"), ("Set payment block", "T. Nakamura"))
_HEADER = ("case_id", "activity", "timestamp", "resource", "amount")


def event_log(first_case: int, cases: int, random: Random, start: datetime) -> str:
    """A CSV event log of `cases` purchases: case, activity, timestamp, resource, amount."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_HEADER)
    for case in range(first_case, first_case + cases):
        moment = start + timedelta(minutes=random.randrange(60 * 24 * 7))
        amount = f"{random.lognormvariate(7, 1):.2f}"
        steps = list(_ACTIVITIES)
        if random.random() < 0.3:
            steps.insert(random.randrange(3, 6), random.choice(_DETOURS))
        for activity, resource in steps:
            writer.writerow((f"PO-{case:06d}", activity, moment.isoformat(), resource, amount))
            moment += timedelta(minutes=random.randrange(5, 60 * 48))
    return text.getvalue()


@dataclass(frozen=True, slots=True)
class Way:
    """One way to write an export, and the feed that takes it."""

    feed: str
    datatable_id: str
    ready: str
    told_as: str
    write: Callable[[Path, str], Coroutine[Any, Any, None]]


async def _renamed_in(path: Path, text: str) -> None:
    """Written under another name, then renamed: it is whole when its name appears."""
    part = path.with_name("." + path.name + ".part")
    await asyncio.to_thread(part.write_text, text)
    await asyncio.to_thread(part.rename, path)


async def _slowly(path: Path, text: str) -> None:
    """Written under its own name, with pauses longer than `settle`."""
    lines = text.splitlines(keepends=True)
    with await asyncio.to_thread(path.open, "w") as file:
        for start in range(0, len(lines), len(lines) // 3 + 1):
            file.writelines(lines[start : start + len(lines) // 3 + 1])
            file.flush()
            await asyncio.sleep(0.8)


async def _with_marker(path: Path, text: str) -> None:
    """Written in two goes, then vouched for by an empty file beside it."""
    half = len(text) // 2
    await asyncio.to_thread(path.write_text, text[:half])
    await asyncio.sleep(0.8)
    with await asyncio.to_thread(path.open, "a") as file:
        file.write(text[half:])
    await asyncio.to_thread(path.with_name(path.name + ".done").touch)


WAYS = (
    Way("purchase-orders", "table-456", "closed", "renamed in when whole", _renamed_in),
    Way("goods-receipts", "table-457", "closed", "written slowly, with pauses", _slowly),
    Way("invoices", "table-458", "marker", "followed by a marker file", _with_marker),
)


def named(way: Way, number: int) -> str:
    """The file name of an export."""
    return f"{way.feed}-{datetime.now(UTC):%Y-%m-%d}-{number:03d}.csv"
