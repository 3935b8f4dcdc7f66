"""What is in force and where each value comes from, as a file that could be used; and the schema for editors."""

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from tablefeed.config.environment import Place
from tablefeed.config.fields import Form
from tablefeed.config.keys import key_source
from tablefeed.config.model import SECTIONS, FeedSettings, Section, Settings

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The configuration file as JSON Schema."""
    return {"$schema": _DIALECT, **Settings.model_json_schema(), "title": "tablefeed.toml"}


def in_force(settings: Settings, file: Path | None, origins: Mapping[Place, str], environ: Mapping[str, str]) -> str:
    """All settings as TOML, each with its origin in a comment. No key is shown, only where it is taken from.

    `origins`: which variable has set a value, by the value's place.
    """
    lines = [f"# What is in force: from {file or 'the environment alone'}, environment variables and defaults."]
    for name in SECTIONS:
        section: Section = getattr(settings, name)
        lines += ["", f"[{name}]", *_section(section, (name,), file, origins)]
    for number, feed in enumerate(settings.feeds):
        lines += ["", "[[feeds]]", f"# its API key: {key_source(settings, feed, environ).name}"]
        lines += _section(feed, ("feeds", number), file, origins)
    return "\n".join(lines) + "\n"


def _section(section: Section, place: Place, file: Path | None, origins: Mapping[Place, str]) -> Iterator[str]:
    settings = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if value is None and not isinstance(field.default, str):
            continue
        settings.append((f"{name} = {_written(value, field)}", _origin(section, name, place, file, origins)))
    width = max(len(text) for text, _ in settings)
    yield from (f"{text.ljust(width)}  # {origin}" for text, origin in settings)


def _origin(section: Section, name: str, place: Place, file: Path | None, origins: Mapping[Place, str]) -> str:
    if name not in section.model_fields_set:
        return "default"
    whole = origins.get(place[:1]) if isinstance(section, FeedSettings) else None
    return origins.get((*place, name)) or whole or str(file)


def _written(value: Any, field: FieldInfo) -> str:
    """A value as it is written in a file."""
    form = next((it for it in field.metadata if isinstance(it, Form)), None)
    if form is not None:
        value = form.write(value)
    elif isinstance(value, Enum):
        value = value.value
    elif isinstance(value, Path) or value is None:
        value = str(value or "")
    return json.dumps(value, ensure_ascii=False)
