"""Logging: structlog and the standard library's loggers through one chain, at whose end every secret is taken out.

Use it as `log = structlog.get_logger("room")` and `log.info("file_delivered", feed=…)`: the event is a constant in
snake_case, all else a field. One event is one line, whatever a file is called: what is not printable is escaped.
"""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from tablefeed.loglines import Cleaner, console_renderer, json_renderer, with_priority

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(
    log_format: Literal["auto", "json", "console"],
    level: Literal["debug", "info", "warning", "error"],
    stream: TextIO,
    secrets: Callable[[], Collection[str]],
    journal: str = "",
) -> None:
    """Send what structlog, logging and warnings say to `stream`, without what `secrets()` returns at that moment.

    `journal`: what $JOURNAL_STREAM holds, the device and inode of systemd's journal; a stream that is the journal gets
    each line's priority too (systemd.exec(5), sd-daemon(3)).

    Libraries are heard from `warning` on, and in full at level `debug`. A logger that has been used before keeps what
    was configured then, so call this once, before anything is logged.
    """
    on_terminal = stream.isatty()
    clean = Cleaner(secrets)
    renderer = (
        console_renderer(coloured=on_terminal)
        if log_format == "console" or (log_format == "auto" and on_terminal)
        else json_renderer(ascii_only=not _is_unicode(stream))
    )
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        clean,
        with_priority(renderer) if _is_file(stream, journal) else renderer,
    ]
    output = _Output(stream)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        context_class=dict,
        logger_factory=lambda *names: _NamedOutput(output, *names),
        cache_logger_on_first_use=True,
    )
    _configure_libraries(
        processors, output, logging.DEBUG if level == "debug" else max(_LEVELS[level], logging.WARNING)
    )


def log_crashes() -> None:
    """Log what no one caught, instead of letting Python print it with whatever secrets it holds.

    For the program's start: it replaces the hooks of the interpreter and of threads.
    """
    log = structlog.get_logger("crash")

    def uncaught(
        kind: type[BaseException], error: BaseException | None, trace: TracebackType | None, **where: object
    ) -> None:
        if not issubclass(kind, KeyboardInterrupt | SystemExit):
            log.critical("uncaught_exception", exc_info=(kind, error or kind(), trace), **where)

    sys.excepthook = uncaught
    threading.excepthook = lambda crash: uncaught(
        crash.exc_type, crash.exc_value, crash.exc_traceback, thread=crash.thread.name if crash.thread else None
    )
    sys.unraisablehook = lambda crash: uncaught(
        crash.exc_type, crash.exc_value, crash.exc_traceback, where=crash.err_msg
    )


def _configure_libraries(processors: list[Processor], output: "_Output", level: int) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, _add_extra, _strip_event],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *processors],
    )
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _LibraryHandler):
            root.removeHandler(handler)
    root.addHandler(_LibraryHandler(formatter, output))
    root.setLevel(level)
    # Below that it shows what it writes and reads, grants included, with long values cut in their middle, where no
    # pattern finds the rest of a signature.
    logging.getLogger("sqlalchemy").setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)


def _add_extra(logger: logging.Logger, method: str, event_dict: EventDict) -> EventDict:
    """Add what the record has as `extra`, which never replaces the message."""
    return {**structlog.stdlib.ExtraAdder()(logger, method, {"_record": event_dict["_record"]}), **event_dict}


def _strip_event(_logger: logging.Logger, _method: str, event_dict: EventDict) -> EventDict:
    """Warnings come with a line break at their end."""
    event_dict["event"] = event_dict["event"].rstrip()
    return event_dict


class _Output:
    """Writes lines to a stream. What the stream does not take is lost; the daemon goes on.

    What is logged in one turn of an event loop is written together at its end, trouble and all else at once.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"
        self._lock = threading.Lock()
        self._lines: list[str] = []
        self._due_in: asyncio.AbstractEventLoop | None = None
        """The loop that has been asked to write them."""

    def write_now(self, line: str) -> None:
        """Write a line, and all before it, without waiting for the turn's end: it may be the last one."""
        self._add(line)
        self.flush()

    def write(self, line: str) -> None:
        """Write one line soon, with `\\` escapes for what the stream's encoding lacks."""
        self._add(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if self._due_in is not loop:
            self._due_in = loop
            loop.call_soon(self.flush)

    def _add(self, line: str) -> None:
        if not line.isascii():
            line = line.encode(self._encoding, "backslashreplace").decode(self._encoding)
        with self._lock:  # a list that another thread is writing out would lose it
            self._lines.append(line + "\n")

    def flush(self) -> None:
        """Write what was logged so far."""
        with self._lock:
            self._due_in = None
            lines, self._lines = self._lines, []
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except (OSError, ValueError):  # a broken pipe, a full disk, a closed stream
                return


class _NamedOutput:
    """What structlog calls a logger: it has a name and takes rendered lines."""

    def __init__(self, output: _Output, name: str | None = None) -> None:
        self.name = name
        self.debug = self.info = output.write
        self.warning = self.error = self.critical = output.write_now


class _LibraryHandler(logging.Handler):
    """Writes the records of other libraries."""

    def __init__(self, formatter: logging.Formatter, output: _Output) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record. One whose arguments do not fit its message is told by that message alone."""
        try:
            line = self.format(record)
        except (LookupError, TypeError, ValueError, AttributeError):
            broken = logging.makeLogRecord({**record.__dict__, "msg": "%s", "args": (str(record.msg),)})
            line = self.format(broken)
        self._output.write(line)


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")


def _is_file(stream: TextIO, file: str) -> bool:
    """Whether the stream is the file of that `device:inode`."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return file == f"{found.st_dev}:{found.st_ino}"
