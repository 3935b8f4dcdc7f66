"""How an event becomes a line of the log: its fields made plain and clean, then written for programs or for people.

What is logged may hold anything: what is not printable is escaped, and every secret is taken out.
"""

import json
import re
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import lru_cache
from textwrap import indent

from structlog.typing import EventDict, Processor

from tablefeed.redact import Redactor, is_plain, plain_fields

_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_MULTILINE = ("exception", "stack")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NEEDS_QUOTES = re.compile(r"""[\s="']""")
_RESET, _BOLD, _DIM, _CYAN = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[36m"
_LEVEL_COLOURS = {"debug": "\x1b[34m", "info": "\x1b[32m", "warning": "\x1b[33m"}
_ALARM_COLOUR = "\x1b[31m"
_EVENT_WIDTH = 24


class Cleaner:
    """The last processor before the renderer: orders the fields, makes them plain, and takes out every secret."""

    def __init__(self, secrets: Callable[[], Collection[str]]) -> None:
        """`secrets` gives those that there are at that moment."""
        self._secrets = secrets
        self._prepared: tuple[frozenset[str], Redactor] = (frozenset(), Redactor(()))

    def __call__(self, logger: object, _method: str, event_dict: EventDict) -> EventDict:
        """Return a new event with None, numbers, text, lists and dicts only."""
        redactor = self._redactor()
        level, event = event_dict.pop("level"), event_dict.pop("event")
        name = event_dict.pop("logger", None) or getattr(logger, "name", None)
        fields = {"logger": name, "event": event, **event_dict} if name else {"event": event, **event_dict}
        if is_plain(fields, redactor):
            cleaned = {name: _escape(item, "\n\t") if type(item) is str else item for name, item in fields.items()}
        else:
            cleaned = plain_fields(fields, lambda text: _escape(redactor.text(text), keep="\n\t"))
        return {"timestamp": _timestamp(time.time()), "level": level, **cleaned}

    def _redactor(self) -> Redactor:
        secrets = frozenset(self._secrets())
        if secrets != self._prepared[0]:
            self._prepared = (secrets, Redactor(secrets))
        return self._prepared[1]


def _timestamp(now: float) -> str:
    milliseconds = int(now * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _escape(text: str, keep: str = "") -> str:
    """The text on one line: bytes that are not UTF-8 as `\\xNN`, control and direction characters likewise."""
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    if "\udc80" <= character <= "\udcff":
        return f"\\x{code - 0xDC00:02x}"
    return _SHORT_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def with_priority(renderer: Processor) -> Processor:
    """What puts each line's priority before it, as systemd's journal takes it (sd-daemon(3))."""

    def render(logger: object, method: str, fields: EventDict) -> str:
        mark = f"<{_PRIORITIES[fields['level']]}>"
        return "\n".join(mark + line for line in str(renderer(logger, method, fields)).split("\n"))

    return render


def json_renderer(*, ascii_only: bool) -> Processor:
    """What writes an event as one JSON object."""
    encode = json.JSONEncoder(ensure_ascii=ascii_only, separators=(",", ":")).encode
    return lambda _logger, _method, event_dict: encode(event_dict)


def console_renderer(*, coloured: bool) -> Processor:
    """What writes an event for people: when, how bad, what, and its fields; tracebacks below it."""
    reset, bold, dim, cyan = (_RESET, _BOLD, _DIM, _CYAN) if coloured else ("", "", "", "")

    def render(_logger: object, _method: str, fields: EventDict) -> str:
        timestamp, level, event = fields.pop("timestamp"), fields.pop("level"), _escape(str(fields.pop("event")))
        blocks = [str(fields.pop(key)) for key in _MULTILINE if key in fields]
        colour = _LEVEL_COLOURS.get(level, _ALARM_COLOUR) if coloured else ""
        pairs = [f"{cyan}{_escape(key)}{reset}={_console_value(value)}" for key, value in fields.items()]
        head = f"{dim}{timestamp}{reset} {colour}{level:<8}{reset} {bold}{event:<{_EVENT_WIDTH}}{reset}"
        return "\n".join([" ".join([head, *pairs]).rstrip(), *(indent(block, "    ") for block in blocks)])

    return render


def _console_value(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    text = _escape(value)
    return '"' + text.replace('"', '\\"') + '"' if not text or _NEEDS_QUOTES.search(text) else text
