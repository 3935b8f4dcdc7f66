"""A program on a terminal of its own: what it says there, and what is typed."""

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO

from support.daemon import clean_environ
from support.patience import PATIENCE


class Terminal:
    """The terminal and the program on it."""

    def __init__(self, master: int, process: Process) -> None:
        self._master = master
        self._news = asyncio.Event()
        self.process = process
        self.said = ""
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            self.said += os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the program has ended
            asyncio.get_running_loop().remove_reader(self._master)
        self._news.set()

    async def until(self, text: str, patience: float = PATIENCE) -> str:
        """Wait until it has said this since the last time; returns what came with it."""
        try:
            async with asyncio.timeout(patience):
                while text not in self.said:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} was not said, but:\n{self.said[-3000:]}") from None
        before, _, self.said = self.said.partition(text)
        return before + text

    def type(self, keys: str) -> None:
        """Press keys; Ctrl-C is `\\x03`."""
        os.write(self._master, keys.encode())

    async def ended(self, patience: float = PATIENCE) -> int:
        """Wait until it has ended, and return its exit code."""
        async with asyncio.timeout(patience):
            return await self.process.wait()


@asynccontextmanager
async def on_terminal(
    *arguments: str,
    columns: int = 100,
    rows: int = 40,
    environ: Mapping[str, str] | None = None,
    stdout: IO[bytes] | None = None,
) -> AsyncIterator[Terminal]:
    """Run a tablefeed command on a terminal of this size; it is killed at the end, should it still run.

    `stdout`: where its output goes instead.
    """
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tablefeed", *arguments),
        stdin=slave,
        stdout=stdout or slave,
        stderr=slave,
        env=clean_environ(TERM="xterm-256color", **(environ or {})),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    terminal = Terminal(master, process)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)
