"""Pydantic's errors in our words: where, what is wrong, and what would be right.

A value is repeated only where it is a number; any other could be a secret under the wrong key.
"""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

from tablefeed.config.environment import Place
from tablefeed.config.model import ONE_FEED, SECTIONS, FeedSettings, Settings


def path_of(place: Place, origins: Mapping[Place, str], feeds: object) -> str:
    """How a place is called: `feeds[1] (orders).directory`, or by the variable that set it."""
    known = next((end for end in range(len(place), 0, -1) if place[:end] in origins), 0)
    text = origins[place[:known]] if known else ""
    for end in range(known, len(place)):
        part = place[end]
        if isinstance(part, str):
            text += f".{part}" if text else part
        else:
            text += f"[{part}]"
            text += _label(feeds, part) if place[:end] == ("feeds",) else ""
    return text


def _label(feeds: object, number: int) -> str:
    feed = feeds[number] if isinstance(feeds, list) and number < len(feeds) else None
    name = feed.get("name") if isinstance(feed, dict) else None
    return f" ({name})" if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}", name) else ""


def explain(error: ErrorDetails) -> str:
    """What is wrong, and what would be right."""
    teller = _TELLERS.get(error["type"])
    return teller(error) if teller else error["msg"]


def unknown_key(place: Place) -> str:
    """What to say of a key that no section has."""
    *above, last = place
    section, key = str(above[0]) if above else "", str(last)
    names = _keys(section)
    near = get_close_matches(key.lower().replace("-", "_"), names, n=1)
    if near:
        return f"is unknown: did you mean {near[0]}?"
    homes = [name for name in ("", *SECTIONS, "feeds") if name != section and key in _keys(name)]
    if homes:
        return f"is unknown here: it belongs in {_header(homes[0])}"
    return f"is unknown: allowed are {', '.join(sorted(names))}"


def _keys(section: str) -> list[str]:
    if not section:
        return list(Settings.model_fields)
    model = FeedSettings if section == "feeds" else SECTIONS[section]
    return list(model.model_fields)


def _header(section: str) -> str:
    if not section:
        return "no section: put it first in the file"
    return "[[feeds]]" if section == "feeds" else f"[{section}]"


def _missing(error: ErrorDetails) -> str:
    if error["loc"] == ("feeds",):
        return f"is missing: {ONE_FEED}, in a section [[feeds]]"
    field = FeedSettings.model_fields[str(error["loc"][-1])]
    example = (field.examples or [""])[0]
    return f'is missing: set it to {field.description}, as in "{example}"'


def _wrong_kind(right: str) -> Callable[[ErrorDetails], str]:
    return lambda error: f"must be {right}, not {_kind(error['input'])}"


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "null" if value is None else "a date or time")


_KINDS = {bool: "true or false", int: "a number", float: "a fraction", str: "text", list: "a list", dict: "a section"}


def _wrong_list(error: ErrorDetails) -> str:
    if error["loc"] == ("feeds",):
        return "must be a list: sections [[feeds]] in a file, a JSON list in TABLEFEED_FEEDS"
    return f'must be a list, as in ["*.csv"], not {_kind(error["input"])}'


def _wrong_section(error: ErrorDetails) -> str:
    if error["loc"][0] == "feeds":
        return f"must hold the keys of a feed, such as name and directory, and not be {_kind(error['input'])}"
    return f"must be a section: write [{error['loc'][0]}], and its keys below it"


def _none_of(error: ErrorDetails) -> str:
    allowed = re.findall(r"'([^']*)'", error["ctx"]["expected"])
    near = get_close_matches(str(error["input"]).lower(), allowed, n=1)
    hint = f': did you mean "{near[0]}"?' if near else ""
    listed = ", ".join(f'"{value}"' for value in allowed)
    return f"must be one of {listed}{hint}"


def _too_small(error: ErrorDetails) -> str:
    return f"must be at least {error['ctx']['ge']}, not {error['input']}"


def _refused(error: ErrorDetails) -> str:
    return str(error["ctx"]["error"])


_TELLERS: dict[str, Callable[[ErrorDetails], Any]] = {
    "extra_forbidden": lambda error: unknown_key(error["loc"]),
    "missing": _missing,
    "string_type": _wrong_kind("text in quotes"),
    "int_type": _wrong_kind("a whole number without quotes, as in 8"),
    "bool_type": _wrong_kind("true or false, without quotes"),
    "tuple_type": _wrong_list,
    "model_type": _wrong_section,
    "enum": _none_of,
    "literal_error": _none_of,
    "greater_than_equal": _too_small,
    "value_error": _refused,
}
