"""What nodes of a fleet tell each other: that files were queued, or that there is something to look at.

It goes by PostgreSQL's NOTIFY, on a connection of its own. What is lost on the way costs time and never a file: each
node looks by itself now and then.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from tablefeed.ledger import postgres

log = structlog.get_logger("fleet")

LONGEST = 7_000
"""Bytes of one message; PostgreSQL takes 8,000."""
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0


@dataclass(frozen=True, slots=True)
class Queued:
    """Files of a shared feed have been queued by some node."""

    feed: str


@dataclass(frozen=True, slots=True)
class Look:
    """A node has heard that these paths of a shared feed may hold something new; none: that all may."""

    feed: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PausesChanged:
    """Somebody has paused or resumed a feed."""


Message = Queued | Look | PausesChanged
_PAUSES = {"changed": "pauses"}


def written(message: Message) -> str:
    """A message as it is sent. One that would be too long says to look at everything."""
    match message:
        case Queued(feed):
            return json.dumps([feed])
        case Look(feed, paths):
            text = json.dumps([feed, [*paths]])
            return text if len(text) <= LONGEST else json.dumps([feed, []])
        case PausesChanged():
            return json.dumps(_PAUSES)


def understood(text: str) -> Message | None:
    """The message that was sent; None: it is of another version, or nobody's of ours."""
    try:
        parts = json.loads(text)
    except ValueError:
        return None
    if parts == _PAUSES:
        return PausesChanged()
    match parts:
        case [str(feed)]:
            return Queued(feed)
        case [str(feed), [*paths]] if all(isinstance(path, str) for path in paths):
            return Look(feed, tuple(paths))
        case _:
            return None


class Listener:
    """Hears what other nodes tell, and makes its connection anew whenever it is lost."""

    def __init__(
        self,
        url: str,
        node: str,
        *,
        heard: Callable[[Message], None],
        deaf: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """`heard` gets each message, `deaf` is called when some may have been missed."""
        self._parameters = postgres.parameters(url) | {"application_name": postgres.session_name(node)}
        self._heard = heard
        self._deaf = deaf
        self._sleep = sleep

    async def run(self) -> None:
        """Hear until cancelled."""
        import psycopg

        wait = _FIRST_WAIT
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(**self._parameters, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {postgres.CHANNEL}".encode())
                    self._deaf()
                    wait = _FIRST_WAIT
                    async for notify in connection.notifies():
                        message = understood(notify.payload)
                        if message is not None:
                            self._heard(message)
            except psycopg.Error as error:
                log.debug("not_listening", reason=type(error).__name__, effect="other nodes are heard at each rescan")
            await self._sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
