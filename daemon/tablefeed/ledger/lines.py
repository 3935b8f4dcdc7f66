"""The ways to a database server, so that what waits for an answer that does not come can be let go.

A thread that reads from a server waits for as long as the connection stands. Where packets are lost, the kernel ends
it; where something between holds the connection open and lets nothing through, or the server stands still, nobody
does.
"""

import os
import socket
from contextlib import suppress
from typing import Any

import sqlalchemy as sa


class Lines:
    """The open connections of engines. `cut` may be called on any thread."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def follow(self, engine: sa.Engine) -> None:
        """Keep in hand all connections that an engine to PostgreSQL makes from now on."""
        sa.event.listen(engine, "connect", self._opened)
        sa.event.listen(engine, "close", self._closing)

    def _opened(self, connection: Any, _record: object) -> None:
        # Our own descriptor: the driver's may be closed, and its number another file's, while it is cut.
        self._sockets[id(connection)] = socket.socket(fileno=os.dup(connection.fileno()))

    def _closing(self, connection: Any, _record: object) -> None:
        self._sockets.pop(id(connection)).close()

    def cut(self) -> None:
        """End all connections; whoever waits on one gets an error at once."""
        for line in [*self._sockets.values()]:
            with suppress(OSError):  # it has just ended by itself
                line.shutdown(socket.SHUT_RDWR)
