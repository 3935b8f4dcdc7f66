"""The rules that name a state, and its form for programs."""

import json
from itertools import product

import pytest

from tablefeed.status import (
    FeedState,
    FeedStatus,
    FileTrouble,
    Kind,
    MinuteStatus,
    ServerStatus,
    Snapshot,
    Trouble,
    UploadStatus,
    stale_since,
    state_of,
)
from tablefeed.telling import headline, plain

DAY = 86_400_000


def snapshot(*feeds: FeedStatus, **more: object) -> Snapshot:
    return Snapshot("1.0", "here", 1, now=5, started_at=1, feeds=feeds, **more)  # type: ignore[arg-type]


def feed(name: str, state: FeedState = FeedState.OK, **more: object) -> FeedStatus:
    return FeedStatus(name, f"/srv/{name}", "table-1", state, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kinds", "state"),
    [
        ([], FeedState.OK),
        ([Kind.STALE], FeedState.STALE),
        ([Kind.STALE, Kind.SERVER], FeedState.WAITING),
        ([Kind.SERVER, Kind.DELIVERY], FeedState.BLOCKED),
        ([Kind.STALE, Kind.ARCHIVE], FeedState.BLOCKED),
        ([Kind.DELIVERY, Kind.DIRECTORY, Kind.STALE], FeedState.UNUSABLE),
    ],
)
def test_a_feed_has_the_state_of_its_worst_trouble(kinds: list[Kind], state: FeedState) -> None:
    """Unless somebody has paused it: then that is what is said."""
    troubles = [Trouble(kind, "why", "mend it") for kind in kinds]
    assert state_of(None, troubles) is state
    assert state_of(1, troubles) is FeedState.PAUSED


@pytest.mark.parametrize(
    ("expected", "arrived", "known", "now", "since"),
    [
        (0.0, 0, 0, 99 * DAY, None),  # nobody expects files
        (86_400.0, 10, 0, 10 + DAY, None),  # just in time
        (86_400.0, 10, 0, 11 + DAY, 10 + DAY),
        (86_400.0, None, 7, 7 + DAY, None),  # never had one: counted from when it was known
        (86_400.0, None, 7, 8 + DAY, 7 + DAY),
        (86_400.0, 10, 9 * DAY, 11 + DAY, 10 + DAY),
    ],
)
def test_a_feed_is_stale_when_no_file_arrived_for_too_long(
    expected: float, arrived: int | None, known: int, now: int, since: int | None
) -> None:
    """Since the moment at which one was due."""
    assert stale_since(expected, arrived, known, now) == since


def test_the_headline_says_that_all_is_well_only_when_nobody_needs_to_look() -> None:
    """Each state that is not well is named with its feeds, and so are refused files."""
    assert headline(snapshot(feed("a"))) == "all is well"
    for state in set(FeedState) - {FeedState.OK}:
        text = headline(snapshot(feed("a"), feed("b", state), feed("c", state)))
        assert text.endswith(": b, c"), text
    many = snapshot(*(feed(f"f{number}", FeedState.BLOCKED) for number in range(12)))
    assert headline(many).endswith("f3, f4 and 7 more")
    assert headline(snapshot(feed("a", refused=1))) == "1 file refused"
    assert headline(snapshot(feed("a", FeedState.BLOCKED, refused=2))) == "blocked: a; 2 files refused"
    assert "disk" in headline(snapshot(feed("a"), ledger_problem="the disk is gone"))
    assert headline(snapshot(feed("a"), draining=True)).startswith("ending")


def test_a_headline_that_would_grow_too_long_names_fewer_and_then_counts() -> None:
    """A phone shows it in a few lines, however many feeds are in trouble and however long names are."""
    here, node = "purchase-orders-europe", "frankfurt-export-host-07.plants.example.com"
    long = [feed(f"{here}-{number}", FeedState.BLOCKED, refused=1) for number in range(12)]
    assert headline(snapshot(*long)) == f"blocked: {here}-0, {here}-1 and 10 more; 12 files refused"
    blocked = tuple(Trouble(Kind.DELIVERY, "refused", "mend it", node=f"{number}.{node}") for number in range(9))
    away = [feed(f"{here}-{number}", FeedState.BLOCKED, troubles=blocked) for number in range(12)]
    assert headline(snapshot(*away)) == "blocked: 12 feeds"
    assert headline(snapshot(away[0])) == f"blocked: {here}-0 on 0.{node} and 8 more"
    every = [feed(f"{here}-{state}-{number}", state, refused=9) for state in FeedState for number in range(99)]
    assert len(headline(snapshot(*every, draining=True))) < 200


def test_only_what_needs_somebody_makes_it_not_ok() -> None:
    """A pause is somebody's will; a failing server, a ledger that cannot be read and all other states are not."""
    fine = {FeedState.OK, FeedState.PAUSED}
    for one, other in product(FeedState, FeedState):
        assert snapshot(feed("a", one), feed("b", other)).ok is (one in fine and other in fine)
    assert not snapshot(feed("a"), ledger_problem="gone").ok
    assert not snapshot(feed("a"), servers=(ServerStatus("https://s", "down", ("a",), 1, 2),)).ok


def test_the_form_for_programs_has_times_in_iso_8601_and_names_that_can_be_printed() -> None:
    """Everything in it can be written as JSON, whatever a file's name holds."""
    odd = "caf\udce9\n<b>.csv"
    full = snapshot(
        feed(
            "a",
            queued=2,
            bytes_today=7,
            last_delivery_at=1_795_608_000_123,
            troubles=(Trouble(Kind.DELIVERY, "the key was refused", "mend it", since=1_795_608_000_000),),
        ),
        feed("b", queued=3),
        uploads=(UploadStatus(1, "a", odd, 10, 5, 2.5, 1_795_608_000_000, 0),),
        files=(FileTrouble(1, "a", odd, "queued", "reset", 1, 1_795_608_000_000, None),),
        hour=(MinuteStatus(1_795_608_000_000, 1, 10),),
    )
    shown = json.loads(json.dumps(plain(full)))
    noon = "2026-11-25T12:00:00.000Z"
    assert shown["feeds"][0]["last_delivery_at"] == "2026-11-25T12:00:00.123Z"
    assert shown["feeds"][0]["troubles"][0]["since"] == noon
    assert shown["uploads"][0]["path"] == "caf\\xe9\n<b>.csv"
    assert (shown["uploads"][0]["started_at"], shown["hour"][0]["at"], shown["files"][0]["next_try_at"]) == (
        noon, noon, None,
    )  # fmt: skip
    assert shown["feeds"][0]["queued"] == 2, "a number that is no time stays one"
    assert shown["totals"]["queued"] == 5
    assert shown["totals"]["last_delivery_at"] == "2026-11-25T12:00:00.123Z"
    assert (shown["ok"], shown["headline"]) == (True, "all is well")
