"""Each line that is logged, by whomever, is whole, readable and without secrets."""

import asyncio
import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tablefeed import logs

KEY = "hunter2-hunter2"
SIGNED = "https://store.example/b/k?X-Amz-Signature=0123abcd"


class Log:
    """What was written, and a logger that writes there."""

    def __init__(self, log_format: Any, level: Any = "info", stream: io.TextIOWrapper | None = None) -> None:
        self.secrets = [KEY]
        self.stream = stream or io.TextIOWrapper(io.BytesIO(), "utf-8")
        logs.configure(log_format, level, self.stream, lambda: self.secrets)
        self.log = structlog.get_logger("room")

    @property
    def text(self) -> str:
        assert isinstance(self.stream.buffer, io.BytesIO)
        return self.stream.buffer.getvalue().decode(self.stream.encoding)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.split("\n")[:-1]]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Give structlog and logging back as they were."""
    root = logging.getLogger()
    handlers, level, sqlalchemy_level = list(root.handlers), root.level, logging.getLogger("sqlalchemy").level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("sqlalchemy").setLevel(sqlalchemy_level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def run(code: str, *, stderr: int = subprocess.PIPE, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program that logs to its standard error."""
    program = f"import sys, structlog, logging\nfrom tablefeed import logs\nKEY = {KEY!r}\nSIGNED = {SIGNED!r}\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**os.environ, **environ},
        timeout=60,
        check=False,
    )


def test_a_json_line_begins_with_time_level_and_event() -> None:
    """Programs find the same fields at the same place, and the time is UTC with milliseconds."""
    log = Log("json")
    log.log.info("file_delivered", feed="orders", size=3, ok=True, tags=("a", "b"), none=None)
    (event,) = log.events
    assert list(event)[:4] == ["timestamp", "level", "logger", "event"]
    assert event["timestamp"][10] == "T"
    assert event["timestamp"][19] == "."
    assert event["timestamp"][23:] == "Z"
    assert {key: event[key] for key in list(event)[1:]} == {
        "level": "info",
        "logger": "room",
        "event": "file_delivered",
        "feed": "orders",
        "size": 3,
        "ok": True,
        "tags": ["a", "b"],
        "none": None,
    }


def test_a_console_line_is_plain_without_a_terminal() -> None:
    """Who asks for console in a file gets no colour codes."""
    log = Log("console")
    log.log.warning("file_waits", path="a b.csv", size=3, reason='say "no"', empty="")
    assert "\x1b" not in log.text
    assert "warning  file_waits" in log.text
    assert log.text.endswith('logger=room path="a b.csv" size=3 reason="say \\"no\\"" empty=""\n')


@pytest.mark.parametrize("log_format", ["auto", "console", "json"])
def test_a_terminal_gets_colours_unless_json_is_asked_for(log_format: str) -> None:
    """`auto` is the console on a terminal."""
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as terminal:
        logs.configure(log_format, "info", terminal, list)  # type: ignore[arg-type]
        structlog.get_logger("room").info("file_delivered")
    written = os.read(ours, 4096)
    os.close(ours)
    assert (b"\x1b[" in written) == (log_format != "json")
    assert written.startswith(b"{") == (log_format == "json")


def test_auto_is_json_without_a_terminal() -> None:
    """Services and pipes get JSON by default."""
    log = Log("auto")
    log.log.info("file_delivered")
    assert log.events[0]["event"] == "file_delivered"


def test_levels_below_the_chosen_one_are_silent() -> None:
    """At `warning` neither our information nor theirs is written."""
    log = Log("json", "warning")
    log.log.info("file_delivered")
    log.log.warning("file_waits")
    assert [event["event"] for event in log.events] == ["file_waits"]


@pytest.mark.parametrize(
    "name", ["aiohttp.client", "sqlalchemy.engine", "alembic.runtime", "asyncio", "watchfiles.main"]
)
def test_libraries_speak_up_from_warning_on_and_in_full_at_debug(name: str) -> None:
    """At `info` a library's chatter stays out; at `debug` it is what one wants to see."""
    quiet = Log("json", "info")
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")
    assert [(event["event"], event["logger"]) for event in quiet.events] == [("trouble", name)]
    full = Log("json", "debug")
    logging.getLogger(name).debug("chatter")
    assert [event["level"] for event in full.events] == ([] if name.startswith("sqlalchemy") else ["debug"])


def test_the_rows_that_sqlalchemy_reads_are_never_logged() -> None:
    """At debug it prints them, cut in their middle, where no pattern finds the rest of a long signature."""
    full = Log("json", "debug")
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(sa.text("select :secret"), {"secret": "f00d" * 128}).all()
    assert "f00df00d" not in full.text


def test_configuring_again_does_not_double_the_lines_of_libraries() -> None:
    """A second call replaces the first one's handler."""
    first, second = Log("json"), Log("json")
    logging.getLogger("aiohttp").warning("trouble")
    assert (len(first.events), len(second.events)) == (0, 1)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_is_logged_by_us(log_format: str) -> None:
    """Keys and signatures are taken out of events, fields, names, structures, exceptions and stacks."""
    log = Log(log_format)
    fields = {f"name {KEY}": 1, "headers": {"x-api-key": "z9"}, "deep": [{"url": SIGNED}], "path": Path(f"/a/{KEY}")}
    log.log.info("event %s %s", KEY, SIGNED, stack_info=True, **fields)
    try:
        raise ValueError(SIGNED) from OSError(KEY)
    except ValueError:
        log.log.exception("file_failed", error=ValueError(f"{KEY} {SIGNED}"))
    assert "Traceback" in log.text
    assert "Stack" in log.text
    assert not [secret for secret in (KEY, "0123abcd", "z9") if secret in log.text]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_secret_is_logged_by_a_library(log_format: str) -> None:
    """Message, arguments, extra fields, exceptions and stacks of the standard library's records are redacted too."""
    log = Log(log_format)
    library = logging.getLogger("aiohttp.server")
    library.warning("asked %s with %s", SIGNED, KEY, extra={"headers": {"x-api-key": "z9"}, "other": KEY})
    try:
        raise ValueError(SIGNED) from OSError(KEY)
    except ValueError:
        library.exception("failed", stack_info=True)
    assert "Traceback" in log.text
    assert "Stack" in log.text
    assert not [secret for secret in (KEY, "0123abcd", "z9") if secret in log.text]


def test_a_key_that_is_learnt_later_is_redacted_from_then_on() -> None:
    """A reload that brings another key takes effect at once."""
    log = Log("json")
    log.log.info("before", key_of_later="second-key-9")
    log.secrets = [KEY, "second-key-9"]
    log.log.info("after", value=f"second-key-9 {KEY}")
    assert [("second-key-9" in line) for line in log.text.splitlines()] == [True, False]


def test_warnings_and_crashes_go_through_the_same_chain() -> None:
    """What Python itself would print with its secrets is logged without them, also from threads and destructors."""
    result = run(
        """
logs.configure("json", "info", sys.stderr, lambda: [KEY])
logs.log_crashes()
import warnings, threading
warnings.warn(f"{KEY} is old")
class Bad:
    def __del__(self):
        raise OSError(SIGNED)
Bad()
thread = threading.Thread(target=lambda: int(KEY)); thread.start(); thread.join()
raise KeyError(SIGNED + KEY)
"""
    )
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert [event["event"] for event in events][1:] == ["uncaught_exception"] * 3
    assert "is old" in events[0]["event"]
    assert KEY not in result.stderr
    assert "0123abcd" not in result.stderr
    assert result.returncode == 1


@pytest.mark.parametrize("log_format", ["json", "console"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.characters(codec=None), min_size=1))
def test_any_file_name_stays_on_one_line(log_format: str, name: str) -> None:
    """No name, however strange its characters or bytes, breaks a line, the stream's encoding, or the terminal."""
    log = Log(log_format)
    log.log.info("file_waits", path=name, list=[name], **{f"x{name}": 1})
    assert len(log.text.splitlines()) == 1
    assert log.text[:-1].isprintable() or not {*log.text[:-1]} & {*map(chr, range(32)), "\x7f", "\x9b", "\u202e"}
    if log_format == "json":
        assert log.events[0]["event"] == "file_waits"


def test_bytes_that_are_not_utf_8_are_shown_in_hexadecimal() -> None:
    """An operator can tell the bytes of such a name."""
    log = Log("json")
    log.log.info("file_waits", path=os.fsdecode(b"Auftr\xe4ge\xff.csv"), other="ä\ud800")
    assert log.events[0]["path"] == "Auftr\\xe4ge\\xff.csv"
    assert log.events[0]["other"] == "ä\\ud800"


def test_a_name_cannot_fake_a_line_of_its_own() -> None:
    """Line breaks in values are escaped, and the lines of a traceback are indented."""
    log = Log("console")
    try:
        raise ValueError("a\n2026-01-01 info fake\x1b[31m")
    except ValueError:
        log.log.exception("file_failed", path="a\nfake\x1b[2J")
    lines = log.text.split("\n")
    assert "path=a\\nfake\\x1b[2J" in lines[0]
    assert all(line.startswith("    ") for line in lines[1:-1])
    assert "\x1b" not in log.text


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_stream_that_is_not_utf_8_gets_escapes(log_format: str) -> None:
    """In a C locale nothing fails, and JSON stays JSON."""
    log = Log(log_format, stream=io.TextIOWrapper(io.BytesIO(), "ascii"))
    log.log.info("file_waits", path="Aufträge.csv")
    assert ("Auftr\\u00e4ge" if log_format == "json" else "Auftr\\xe4ge") in log.text


def test_utf_8_stays_readable_in_json() -> None:
    """`grep Aufträge` finds its line."""
    log = Log("json")
    log.log.info("file_waits", path="Aufträge.csv")
    assert "Aufträge.csv" in log.text


def test_numbers_that_json_lacks_become_text() -> None:
    """Every line is strict JSON."""
    log = Log("json")
    log.log.info("rate", value=float("inf"), other=float("nan"))
    assert (log.events[0]["value"], log.events[0]["other"]) == ("inf", "nan")


def test_arguments_that_do_not_fit_their_message_lose_only_themselves() -> None:
    """A library's mistake in logging is shown by its message, and its arguments are not printed raw elsewhere."""
    result = run(
        """
logs.configure("json", "info", sys.stderr, lambda: [KEY])
logging.getLogger("aiohttp").warning("one %s", KEY, SIGNED)
logging.getLogger("aiohttp").warning("number %d", KEY)
"""
    )
    assert [json.loads(line)["event"] for line in result.stderr.splitlines()] == ["one %s", "number %d"]


def test_extra_fields_never_replace_the_message() -> None:
    """A library's field called event or level does not hide what was said."""
    log = Log("json")
    logging.getLogger("aiohttp").warning("trouble", extra={"event": "other", "level": "other", "host": "h"})
    assert log.events[0].items() >= {"event": "trouble", "level": "warning", "host": "h"}.items()


def test_a_closed_stream_stops_nobody() -> None:
    """A stream that is gone takes the line with it and nothing else."""
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8")
    log = Log("json", stream=stream)
    stream.close()
    log.log.info("file_delivered")
    logging.getLogger("aiohttp").warning("trouble")


def test_a_reader_that_went_away_stops_nobody() -> None:
    """With a broken pipe behind its log the daemon goes on and ends as it would have."""
    reading, writing = os.pipe()
    os.close(reading)
    result = run(
        """
logs.configure("json", "info", sys.stderr, list)
for number in range(1000):
    structlog.get_logger("room").info("file_delivered", number=number, text="x" * 100)
print("done")
""",
        stderr=writing,
    )
    os.close(writing)
    assert (result.stdout, result.returncode) == ("done\n", 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_stops_nobody() -> None:
    """With no space for its log the daemon goes on and ends as it would have."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        result = run(
            """
logs.configure("json", "info", sys.stderr, list)
for number in range(1000):
    structlog.get_logger("room").info("file_delivered", number=number, text="x" * 100)
print("done")
""",
            stderr=full.fileno(),
        )
    assert (result.stdout, result.returncode) == ("done\n", 0)


def test_lines_of_many_threads_do_not_mix() -> None:
    """The ledger's thread and the loop write whole lines."""
    result = run(
        """
import threading
logs.configure("json", "info", sys.stderr, list)
def write():
    log = structlog.get_logger("room")
    for number in range(200):
        log.info("file_delivered", number=number, text="x" * 5000)
threads = [threading.Thread(target=write) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    )
    assert len([json.loads(line) for line in result.stderr.splitlines()]) == 800


@pytest.mark.parametrize(("log_format", "text"), [("json", '{"timestamp"'), ("console", "2")])
def test_the_journal_learns_how_bad_each_line_is(tmp_path: Path, log_format: Any, text: str) -> None:
    """`journalctl -p err` finds what wants a human: each line has its priority, where the stream is the journal."""
    for journal in (True, False):
        with (tmp_path / f"log-{journal}").open("w") as stream:
            there = os.fstat(stream.fileno())
            logs.configure(
                log_format, "debug", stream, list, f"{there.st_dev}:{there.st_ino}" if journal else f"{there.st_dev}:1"
            )
            log = structlog.get_logger("room")
            for level in ("debug", "info", "warning", "error", "critical"):
                log.log(
                    getattr(logging, level.upper()), "told", **({"exception": "one\ntwo"} if level == "error" else {})
                )
        lines = (tmp_path / f"log-{journal}").read_text().splitlines()
        marks = [line[:3] if line.startswith("<") else "" for line in lines]
        errors = 3 if log_format == "console" else 1
        expected = ["<7>", "<6>", "<4>", *["<3>"] * errors, "<2>"]
        assert marks == (expected if journal else [""] * len(expected))
        assert lines[0].removeprefix("<7>").startswith(text)


async def test_trouble_is_written_at_once_and_all_else_at_the_end_of_the_turn() -> None:
    """The last words before a hang are there to be read, with what was logged before them, in order."""
    log = Log("json")
    log.log.info("first")
    assert log.text == ""
    log.log.error("second")
    assert [event["event"] for event in log.events] == ["first", "second"]
    log.log.info("third")
    await asyncio.sleep(0)
    assert [event["event"] for event in log.events] == ["first", "second", "third"]
