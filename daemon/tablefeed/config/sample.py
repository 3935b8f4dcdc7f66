"""The commented sample file, made from the settings themselves.

python -m tablefeed.config.sample > config/tablefeed.toml
"""

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping

from pydantic.fields import FieldInfo

from tablefeed.config.model import SECTIONS, FeedSettings, Section, Settings

WIDTH = 118
_SHOWN = (("api", "tenant_id"), ("api", "api_key_file"))
"""Keys that nearly every file sets, though they have another place too."""

HEAD = """\
Configuration of tablefeed.

What must be set stands plain. A key that is commented out shows its default; where it has none, an example.
Durations read like "500ms", "30s", "1h30m" or "7d", sizes like "64MiB" or "10MB".
Each key can also come from the environment, which wins: TABLEFEED_API__TENANT_ID, TABLEFEED_UPLOAD__CONCURRENCY,
and TABLEFEED_FEEDS as a JSON list of all feeds. `tablefeed check` tells whether all is well.
"""


def sample(values: Mapping[tuple[str, str], object] | None = None) -> str:
    """The text of the sample file, with these values by section and key in the place of its own."""
    given = values or {}
    lines = [f"# {line}".rstrip() for line in HEAD.splitlines()]
    for name in Settings.model_fields:
        header, model = (f"[{name}]", SECTIONS[name]) if name in SECTIONS else (f"[[{name}]]", FeedSettings)
        lines += ["", *_comment(model.__doc__ or ""), header, *_section(name, model, given)]
    return "\n".join(lines) + "\n"


def _section(section: str, model: type[Section], given: Mapping[tuple[str, str], object]) -> Iterator[str]:
    fields = model.model_fields
    settings = {name: _setting(section, name, field, given) for name, field in fields.items()}
    column = max(map(len, settings.values())) + 2
    for name, text in settings.items():
        first, *more = _comment(fields[name].description or "", WIDTH - column)
        yield text.ljust(column) + first
        yield from (" " * column + line for line in more)


def _setting(section: str, name: str, field: FieldInfo, given: Mapping[tuple[str, str], object]) -> str:
    if (section, name) in given:
        return f"{name} = {_toml(given[section, name])}"
    live = field.is_required() or (section, name) in _SHOWN
    value = field.examples[0] if field.examples else field.default
    return f"{'' if live else '#'}{name} = {_toml(value)}"


def _toml(value: object) -> str:
    """A value as TOML; what JSON writes for text, numbers, truth values and lists is TOML too."""
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str, width: int = WIDTH) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="# ", subsequent_indent="# ")


if __name__ == "__main__":
    sys.stdout.write(sample())
