"""The kinds of values that settings have. Each says, when it refuses one, what would be right.

No message repeats a value that could be a secret set under the wrong key, or could hold a password.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, TypeAdapter, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tablefeed.model import LARGEST_PUT
from tablefeed.units import format_duration, format_size, parse_duration, parse_size

AUTO = "auto"
"""Stands for a number that is found by trying."""
STRFTIME_CODES = "aAbBdeFGHIjmMpSuUVwWyYzZ%"
"""The strftime codes that give no "/"."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a value is written in a file, when that is not how it is held."""

    write: Callable[[Any], Any]
    pattern: str
    """For editors: a regular expression, in the dialect of JSON Schema."""

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What JSON Schema says of it."""
        return {"type": "string", "pattern": self.pattern}


def _exact_size(value: int) -> str:
    text = format_size(value)
    return text if parse_size(text) == value else f"{value}B"


NUMBER = r"[0-9]+(\.[0-9]+)?"
DURATION = Form(format_duration, f"^(?=.)({NUMBER}d)?({NUMBER}h)?({NUMBER}m)?({NUMBER}s)?({NUMBER}ms)?$")
UNIT = "(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)"
SIZE = Form(_exact_size, f"^{NUMBER}{UNIT}?$")


def option(default: Any, about: str, *, example: Any = None, **limits: Any) -> Any:
    """A field: its default as it is written in a file, its description, and an example where it has no default."""
    examples = None if example is None else [example]
    return Field(default=default, description=about, examples=examples, validate_default=True, **limits)


def needed(about: str, *, example: Any, **limits: Any) -> Any:
    """A field without a default."""
    return Field(description=about, examples=[example], **limits)


def checked(kind: Any, text: str) -> str:
    """A text as a setting of this kind takes it. Raises ValueError with what would be right."""
    try:
        value: str = TypeAdapter(kind).validate_python(text)
    except ValidationError as error:
        raise ValueError(error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")) from None
    return value


def _duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        raise ValueError(f'has no unit: use "{value}s"')
    raise ValueError('must be a duration in quotes, as in "30s"')


def _at_least(least: float, text: str) -> Callable[[float], float]:
    def check(value: float) -> float:
        if value < least:
            raise ValueError(f'must be at least "{text}"')
        return value

    return check


def _size(value: object) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError('must be a size in quotes, as in "64MiB", or a number of bytes')


def _put_size(value: int) -> int:
    if not 0 < value <= LARGEST_PUT:
        raise ValueError(
            f'must be more than 0 and at most "{format_size(LARGEST_PUT)}", the most that one PUT can carry'
        )
    return value


def _number_or_auto(value: object) -> int | None:
    if value == AUTO:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f'must be at least 1, not {value}, or "{AUTO}"')
        return value
    raise ValueError(f'must be a whole number without quotes, as in 8, or "{AUTO}"')


class AutoForm(Form):
    """A number, or a word for one that is found by trying."""

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """What JSON Schema says of it."""
        return {"anyOf": [{"type": "integer", "minimum": 1}, {"const": AUTO}]}


def _identifier(value: str) -> str:
    if not re.fullmatch(r"[^\s/]+", value) or not value.isprintable() or value in (".", ".."):
        raise ValueError('must be an id as ProcessMind shows it: not empty, without spaces and "/"')
    return value


def _feed_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        raise ValueError('must begin with a letter or digit and hold only letters, digits, ".", "_" and "-"')
    return value


def _absolute_path(value: object) -> Path:
    if isinstance(value, str | Path) and Path(value).is_absolute() and "\0" not in str(value):
        return Path(value)
    raise ValueError('must be an absolute path in quotes: one that begins with "/"')


def _file(value: object) -> Path | None:
    return None if value in ("", None) else _absolute_path(value)


def _pattern(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError('must be a pattern such as "*.csv"')
    return value


def _some(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError('is empty: name at least one pattern, as in ["*.csv"]')
    return value


def _suffix(value: str) -> str:
    if "/" in value or "\0" in value:
        raise ValueError('must be the end of a file name, as in ".done"')
    return value


def _directory(value: str) -> str:
    if not value or "\0" in value:
        raise ValueError("must name a directory")
    if ".." in value.split("/"):
        raise ValueError('must not hold "..": write an absolute path for a directory that lies elsewhere')
    return value


def _template(value: str) -> str:
    for code in re.findall(r"%(.?)", _directory(value), re.DOTALL):
        if not code or code not in STRFTIME_CODES:
            allowed = " ".join(f"%{letter}" for letter in STRFTIME_CODES)
            raise ValueError(f'has the unknown code "%{code}": allowed are {allowed}, as in "archive/%Y/%m"')
    return value


def _plain_directory(value: str) -> str:
    if value in ("delete", "leave"):
        raise ValueError(f'must be a directory: refused files are never lost, so "{value}" is for `archive` only')
    if "%" in value:
        raise ValueError('must be a plain directory, as in "failed": codes such as %Y are for `archive` only')
    return _directory(value)


_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,50}")


def _node_name(value: str) -> str:
    if value and not _NODE.fullmatch(value):
        raise ValueError("must be letters, digits, dots, dashes and underscores, at most 51, with no sign at the begin")
    return value


Duration = Annotated[float, BeforeValidator(_duration), DURATION]
PositiveDuration = Annotated[float, AfterValidator(_at_least(0.001, "1ms")), BeforeValidator(_duration), DURATION]
LongDuration = Annotated[float, AfterValidator(_at_least(1, "1s")), BeforeValidator(_duration), DURATION]
NumberOrAuto = Annotated[
    int | None, BeforeValidator(_number_or_auto), AutoForm(lambda value: value or AUTO, f"^{AUTO}$")
]
PutSize = Annotated[int, AfterValidator(_put_size), BeforeValidator(_size), SIZE]
Identifier = Annotated[str, AfterValidator(_identifier)]
FeedName = Annotated[str, AfterValidator(_feed_name)]
AbsolutePath = Annotated[Path, BeforeValidator(_absolute_path)]
OptionalFile = Annotated[Path | None, BeforeValidator(_file)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_pattern)], ...], Field(strict=False)]
SomePatterns = Annotated[Patterns, AfterValidator(_some)]
Suffix = Annotated[str, AfterValidator(_suffix)]
Template = Annotated[str, AfterValidator(_template)]
PlainDirectory = Annotated[str, AfterValidator(_plain_directory)]
NodeName = Annotated[str, AfterValidator(_node_name)]
