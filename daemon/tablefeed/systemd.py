"""Tells systemd how the daemon is doing, by the protocol of sd_notify(3), without a library.

Outside systemd, and wherever the message cannot be delivered, nothing happens: no unit state is worth a file.
"""

import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from tablefeed.status import Snapshot
from tablefeed.telling import status_line

_LONGEST_STATUS = 512
STATUS_EVERY = 5.0
"""Seconds between two looks at what `systemctl status` shows."""
_MARGIN = 15.0
"""Seconds beyond the drain that the end may take: moves under way are finished and the ledger is closed."""


class Notifier:
    """Sends state changes to the service manager named by NOTIFY_SOCKET. Never blocks and never raises."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ` is the process environment."""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval = _watchdog_interval(environ)
        """Seconds between two calls of `watchdog`: half of what the unit allows. None: nobody waits for them."""

    @property
    def heard(self) -> bool:
        """Whether there is a service manager to tell."""
        return self._address is not None

    def ready(self) -> None:
        """Start-up, or a reload, is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())[:_LONGEST_STATUS]}")

    async def keep_status(
        self, look: Callable[[], Awaitable[Snapshot]], sleep: Callable[[float], Awaitable[object]]
    ) -> None:
        """Tell what `look` finds, again whenever it has changed, until cancelled. Without a manager it never looks."""
        told = ""
        while self.heard:
            line = status_line(await look())
            if line != told:
                self.status(line)
                told = line
            await sleep(STATUS_EVERY)

    def stopping(self, grace: float = 0.0) -> None:
        """The drain has begun, and may take `grace` seconds: also when the unit's TimeoutStopSec is shorter."""
        self._send(
            "STOPPING=1\n"
            "STATUS=draining: what is being sent may finish\n"
            f"EXTEND_TIMEOUT_USEC={round((grace + _MARGIN) * 1e6)}"
        )

    def reloading(self) -> None:
        """The configuration is being read again; `ready` must follow. Type=notify-reload demands the time."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def watchdog(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if self._address is None:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
            client.setblocking(False)
            client.sendto(message.encode("utf-8", "backslashreplace"), self._address)


def _address(name: str) -> str | bytes | None:
    """The socket's address: a path, or a name in the abstract namespace, which is written with `@` for its NUL."""
    match name[:1]:
        case "/":
            return name
        case "@":
            return b"\0" + os.fsencode(name[1:])
        case _:
            return None


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
        pid = int(environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 and pid == os.getpid() else None
