"""What a node tells of its troubles: of bounded size, and without secrets."""

from dataclasses import replace

import pytest

from tablefeed.ledger.reports import LONGEST, LONGEST_REASON, LONGEST_REMEDY, MOST, NAMED, NOTHING, understood, written
from tablefeed.nodes import NodeTrouble

ONE = NodeTrouble(
    "orders", "delivery", "the tenant does not have table-9", "Check the feed's datatable_id", 1_764_000_000_000
)


def test_what_is_told_is_understood_as_it_was_meant() -> None:
    """And of nothing, nothing is kept."""
    strange = replace(ONE, feed="items", reason='caf\udce9 "\x00\u2028', remedy="", since=None)
    told = understood(written([ONE, strange]))
    assert told.troubles == (ONE, replace(strange, reason='caf\\xe9 "\x00\u2028'))
    assert told.more == 0
    assert (written([]), understood(""), understood(None)) == ("", NOTHING, NOTHING)


@pytest.mark.parametrize("sign", ["x", "\u20ac", "\x00", "\U0001f4a5"])
def test_it_is_of_bounded_size_whatever_there_is_to_tell(sign: str) -> None:
    """The first are told, in short, and how many more there are."""
    long = replace(ONE, reason=sign * 100_000, remedy=sign * 100_000)
    text = written([replace(long, feed=f"feed-{number:03}") for number in range(500)])
    assert len(text.encode()) <= LONGEST
    told = understood(text)
    assert 3 <= len(told.troubles) <= MOST
    assert len(told.troubles) + told.more == 500
    assert [it.feed for it in told.troubles] == [f"feed-{number:03}" for number in range(len(told.troubles))]
    assert {(len(it.reason), len(it.remedy)) for it in told.troubles} == {(LONGEST_REASON, LONGEST_REMEDY)}
    assert told.troubles[0].reason.endswith("\u2026")
    endless = understood(written([replace(ONE, feed="x" * 2 * LONGEST)]))
    assert (endless.troubles, endless.more) == ((), 1)


def test_the_usual_number_is_told_in_full() -> None:
    """As many as are told in words, and of more of them what they are."""
    told = understood(written([replace(ONE, reason="why " * 20, remedy="do " * 20)] * (NAMED + 2)))
    assert (len(told.troubles), told.more) == (NAMED, 2)
    assert [bool(it.reason and it.remedy) for it in told.troubles] == [True] * MOST + [False] * (NAMED - MOST)
    assert {(it.feed, it.kind, it.since) for it in told.troubles} == {(ONE.feed, ONE.kind, ONE.since)}


@pytest.mark.parametrize(
    "secret",
    [
        "https://store.example/k?X-Amz-Signature=SECRET&X-Amz-Expires=60",
        "postgresql://tablefeed:SECRET@db/x",
        "x-api-key: SECRET",
        "<Signature>SECRET</Signature>",
        f"{'x' * (LONGEST_REASON - 60)} https://store.example/k?X-Amz-Credential=a&X-Amz-Signature=SECRET",
    ],
)
def test_no_secret_is_told(secret: str) -> None:
    """Neither in the reason nor in the remedy, wherever they are cut."""
    text = written([replace(ONE, reason=f"refused: {secret}"), replace(ONE, remedy=secret)])
    assert "SECRET" not in text
    assert "redacted" in text


@pytest.mark.parametrize(
    "text", ["no JSON", "7", "[]", "{}", '{"troubles": 7, "more": 1}', '{"troubles": [], "more": "x"}', "[" * LONGEST]
)
def test_what_another_version_says_is_nothing(text: str) -> None:
    """Where it cannot be understood."""
    assert understood(text) == NOTHING
    strange = '{"feed": "a", "kind": "odd", "reason": "r", "remedy": "", "since": "x"}'
    odd = f'{{"troubles": [7, {{"feed": 1}}, {strange}], "more": 2}}'
    assert [(it.feed, it.kind, it.since) for it in understood(odd).troubles] == [("a", "odd", None)]
