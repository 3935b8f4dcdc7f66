"""Tells systemd how the daemon is doing, by the protocol of sd_notify(3), without a library.

Outside systemd, and wherever the message cannot be delivered, nothing happens: no unit state is worth a file.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

_LONGEST_STATUS = 512


class Notifier:
    """Sends state changes to the service manager named by NOTIFY_SOCKET. Never blocks and never raises."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """`environ` is the process environment."""
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval = _watchdog_interval(environ)
        """Seconds between two calls of `watchdog`: half of what the unit allows. None: nobody waits for them."""

    def ready(self) -> None:
        """Start-up, or a reload, is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show one line in `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())[:_LONGEST_STATUS]}")

    def stopping(self) -> None:
        """The drain has begun."""
        self._send("STOPPING=1")

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
