"""Hears what other nodes of a fleet tell, and makes its connection anew whenever that is lost."""

from collections.abc import Awaitable, Callable

import structlog

from tablefeed.errors import LedgerUnusable
from tablefeed.ledger.messages import Message, understood
from tablefeed.ledger.shared import SharedConnection

log = structlog.get_logger("fleet")

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0


class Listener:
    """Hears other nodes for as long as it runs."""

    def __init__(
        self,
        connection: SharedConnection,
        *,
        heard: Callable[[Message], None],
        deaf: Callable[[], None],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """`heard` gets each message, `deaf` is called when some may have been missed; both on the event loop."""
        self._connection = connection
        self._heard = heard
        self._deaf = deaf
        self._sleep = sleep

    async def run(self) -> None:
        """Hear until cancelled."""
        wait = _FIRST_WAIT
        while True:
            try:
                await self._connection.listen(self._told)
            except LedgerUnusable as error:
                reason = str(error)
            else:
                reason, wait = "the connection was lost", _FIRST_WAIT
            log.debug("not_listening", reason=reason, effect="other nodes are heard at each rescan")
            await self._sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _told(self, text: str | None) -> None:
        if text is None:
            self._deaf()
        elif (message := understood(text)) is not None:
            self._heard(message)
