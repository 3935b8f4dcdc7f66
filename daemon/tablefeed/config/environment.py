"""Settings from environment variables: `TABLEFEED_UPLOAD__CONCURRENCY`, and `TABLEFEED_FEEDS` as a JSON list."""

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from tablefeed.config.bandwidth import TIMETABLE
from tablefeed.config.model import SECTIONS, Settings
from tablefeed.throttle import Schedule

Place = tuple[str | int, ...]
"""Where a value belongs: ("upload", "concurrency"), ("feeds", 1, "directory")."""

PREFIX = "TABLEFEED_"
CONFIG_VARIABLE = "TABLEFEED_CONFIG"
KEY_VARIABLE = "TABLEFEED_API_KEY"
FEEDS_VARIABLE = "TABLEFEED_FEEDS"
COPY_VARIABLES = ("TABLEFEED_LEDGER_FROM", "TABLEFEED_LEDGER_TO")
"""What `tablefeed ledger copy` takes instead of its options, which everybody sees in the list of processes."""
_RESERVED = (CONFIG_VARIABLE, KEY_VARIABLE, *COPY_VARIABLES)

_SERVICE_LINK = re.compile(r"TABLEFEED_(SERVICE_HOST|(SERVICE_)?PORT(_\w+)?)")
_OTHER_SERVICE_LINK = re.compile(
    r"TABLEFEED_([A-Z0-9]+_)+(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)"
)
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")


def _variable(section: str, key: str) -> str:
    return f"{PREFIX}{section}__{key}".upper()


_PLACES: dict[str, tuple[str, str]] = {
    _variable(section, key): (section, key) for section, model in SECTIONS.items() for key in model.model_fields
}


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes made the variable for a Service called "tablefeed", or "tablefeed-something".

    Source: Kubernetes, "Service", "Environment variables": {NAME}_SERVICE_HOST, {NAME}_SERVICE_PORT[_{PORTNAME}],
    {NAME}_PORT and {NAME}_PORT_{NUMBER}_{PROTOCOL}[_PROTO|_PORT|_ADDR].
    """
    return bool(
        _SERVICE_LINK.fullmatch(name)
        or _OTHER_SERVICE_LINK.fullmatch(name)
        or (name.endswith("_PORT") and _LINK_VALUE.fullmatch(value))
    )


class EnvironmentSource(PydanticBaseSettingsSource):
    """What the environment sets, as it would stand in a file; where each value came from; and what is wrong there."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read the variables whose names begin with TABLEFEED_."""
        super().__init__(Settings)
        self.values: dict[str, Any] = {}
        self.origins: dict[Place, str] = {}
        """The variable that set a value, by the value's place."""
        self.problems: list[tuple[str, str]] = []
        for name in sorted(environ):
            if name.startswith(PREFIX) and name not in _RESERVED and not is_service_link(name, environ[name]):
                self._take(name, environ[name])

    def __call__(self) -> dict[str, Any]:
        """The values by section and key."""
        return self.values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value of one section."""
        return self.values.get(field_name), field_name, False

    def _take(self, name: str, text: str) -> None:
        if name == FEEDS_VARIABLE:
            self._take_feeds(text)
        elif name in _PLACES:
            section, key = _PLACES[name]
            self.origins[section, key] = name
            kind = SECTIONS[section].model_fields[key].annotation
            self.values.setdefault(section, {})[key] = self._value(name, text, kind)
        else:
            self.problems.append((name, _unknown(name)))

    def _value(self, name: str, text: str, kind: Any) -> Any:
        if kind == Schedule and text.lstrip().startswith("["):
            return self._json(name, text, f"use {TIMETABLE}")
        return _typed(text, kind)

    def _take_feeds(self, text: str) -> None:
        """A list that cannot be read still overrides the file's, so that no other feeds are taken for these."""
        self.origins["feeds",] = FEEDS_VARIABLE
        self.values["feeds"] = self._json(FEEDS_VARIABLE, text, _FEEDS_FORM)

    def _json(self, name: str, text: str, form: str) -> Any:
        """What a text in JSON says; None, and a problem that shows the form, where it says nothing."""
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            self.problems.append((name, f"is not valid JSON: {error.msg} ({where}); {form}"))
        except RecursionError:
            self.problems.append((name, f"is nested too deeply: {form}"))
        return None


_FEEDS_FORM = 'use [{"name": "orders", "directory": "/srv/exports/orders", "datatable_id": "table-456"}]'


def _typed(text: str, kind: Any) -> Any:
    """The number or truth value that a text stands for, where one is wanted; else the text itself."""
    if kind in (int, int | None) and re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        return int(text)
    if kind is bool:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    return text


def _unknown(name: str) -> str:
    if name.startswith(f"{FEEDS_VARIABLE}_"):
        return f"is unknown: all feeds stand in {FEEDS_VARIABLE}, as a JSON list"
    section = name.removeprefix(PREFIX).lower()
    if section in SECTIONS:
        example = _variable(section, next(iter(SECTIONS[section].model_fields)))
        return f"is unknown: each key has its own variable, as in {example}"
    near = get_close_matches(name, [*_PLACES, *_RESERVED, FEEDS_VARIABLE], n=1, cutoff=0.75)
    return (
        f"is unknown: did you mean {near[0]}?"
        if near
        else "is unknown: remove it, or see `tablefeed.toml` for the keys"
    )
