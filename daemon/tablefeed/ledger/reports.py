"""What a node tells the others of its troubles, in its row of `nodes`: text of bounded size, without secrets."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tablefeed.model import printable
from tablefeed.nodes import NodeTrouble
from tablefeed.redact import redact

MOST = 20
"""Troubles that are told in words."""
NAMED = 100
"""Troubles of which is told at least what sort they are, as far as there is room."""
LONGEST_REASON = 400
LONGEST_REMEDY = 300
"""Characters."""
LONGEST = 16_000
"""Bytes of all of it."""
_DRIFT = 1_000
"""Milliseconds by which the beginning of one trouble may seem to move, since clocks are set right all the time."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a node has told."""

    troubles: tuple[NodeTrouble, ...] = ()
    more: int = 0
    """How many there are besides."""


NOTHING = Report()


def written(troubles: Sequence[NodeTrouble]) -> str:
    """These troubles as they are kept, the first of them with their reasons; empty: there are none."""
    if not troubles:
        return ""
    shown = [_shortened(trouble) for trouble in troubles[:MOST]]
    shown += [replace(trouble, reason="", remedy="") for trouble in troubles[MOST:NAMED]]
    while len((text := _text(shown, len(troubles) - len(shown))).encode()) > LONGEST:
        shown.pop()
    return text


def understood(text: str | None) -> Report:
    """What was told; nothing where it is of another version, and cannot be read."""
    if not text:
        return NOTHING
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return NOTHING
    match told:
        case {"troubles": [*troubles], "more": int(more)}:
            return Report(tuple(it for it in map(_trouble, troubles) if it is not None), more)
        case _:
            return NOTHING


def steadied(troubles: Iterable[NodeTrouble], before: Iterable[NodeTrouble]) -> list[NodeTrouble]:
    """These troubles, each of which began when it was said to have begun `before`, unless it is another one."""
    began = {replace(it, since=None): it.since for it in before}

    def steady(trouble: NodeTrouble) -> NodeTrouble:
        since = began.get(replace(trouble, since=None))
        if since is None or trouble.since is None or abs(trouble.since - since) > _DRIFT:
            return trouble
        return replace(trouble, since=since)

    return [steady(trouble) for trouble in troubles]


def _text(troubles: Sequence[NodeTrouble], more: int) -> str:
    return json.dumps({"troubles": [asdict(trouble) for trouble in troubles], "more": more}, ensure_ascii=False)


def _shortened(trouble: NodeTrouble) -> NodeTrouble:
    reason, remedy = (printable(redact(text)) for text in (trouble.reason, trouble.remedy))
    return replace(trouble, reason=_cut(reason, LONGEST_REASON), remedy=_cut(remedy, LONGEST_REMEDY))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def _trouble(told: Any) -> NodeTrouble | None:
    match told:
        case {"feed": str(feed), "kind": str(kind), "reason": str(reason), "remedy": str(remedy), "since": since}:
            return NodeTrouble(feed, kind, reason, remedy, since if isinstance(since, int) else None)
        case _:
            return None
