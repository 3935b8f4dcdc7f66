"""Reading the configuration: where it lies, what it says, and everything that is wrong with it, at once."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tablefeed.config.environment import CONFIG_VARIABLE, FEEDS_VARIABLE, EnvironmentSource, Place
from tablefeed.config.keys import key_source, notify_source
from tablefeed.config.model import ApiSettings, FeedSettings, Section, Settings, UploadSettings
from tablefeed.config.report import explain, path_of, unknown_key
from tablefeed.config.rules import Parts, Problem, contradictions
from tablefeed.errors import ConfigInvalid, Exit, Fatal
from tablefeed.model import ApiAccess, Feed

DEFAULT_PATH = Path("/etc/tablefeed/tablefeed.toml")

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and where they come from."""

    settings: Settings
    file: Path | None
    origins: Mapping[Place, str]
    """The variable that set a value, by the value's place."""


def load(path: Path | None, environ: Mapping[str, str], *, default: Path = DEFAULT_PATH) -> Settings:
    """The settings of a file (`path`, else $TABLEFEED_CONFIG, else `default` if it exists) and of the environment.

    Raises ConfigInvalid with all errors, and Fatal when the file is missing or may not be read.
    """
    return load_with_origins(path, environ, default=default).settings


def load_with_origins(path: Path | None, environ: Mapping[str, str], *, default: Path = DEFAULT_PATH) -> Loaded:
    """As `load`, with where each value comes from."""
    environment = EnvironmentSource(environ)
    file = _locate(path, environ, default)
    if file is None and FEEDS_VARIABLE not in environ:
        raise ConfigInvalid("the configuration", [*environment.problems, ("", _nothing_found(default))])
    table: dict[str, Any] = {}
    problems = environment.problems
    if file is not None:
        table, syntax = _parse(_read(file))
        problems = syntax + problems
        if syntax:
            raise ConfigInvalid(str(file), problems)
    values = _merged(table, environment())
    settings, contrary = _validated(values, environ)
    told = {path for path, _ in problems}
    for place, text in contrary:
        path_told = path_of(place, environment.origins, values.get("feeds"))
        if path_told not in told:
            problems.append((path_told, text))
    if problems or settings is None:
        raise ConfigInvalid("the environment" if file is None else str(file), problems)
    return Loaded(settings, file, environment.origins)


def to_feeds(settings: Settings, environ: Mapping[str, str]) -> tuple[Feed, ...]:
    """The feeds as the other rooms know them, each with its own access to the API."""
    return tuple(_to_feed(settings, feed, environ) for feed in settings.feeds)


def _to_feed(settings: Settings, feed: FeedSettings, environ: Mapping[str, str]) -> Feed:
    access = ApiAccess(
        base_url=feed.base_url or settings.api.base_url,
        tenant_id=feed.tenant_id or settings.api.tenant_id or "",
        key_name=key_source(settings, feed, environ).name,
    )
    return Feed(
        name=feed.name,
        directory=feed.directory,
        datatable_id=feed.datatable_id,
        api=access,
        dataset_id=feed.dataset_id,
        include=feed.include,
        exclude=feed.exclude,
        recursive=feed.recursive,
        ready=feed.ready,
        marker_suffix=feed.marker_suffix,
        settle=feed.settle,
        empty_after=feed.empty_after,
        order=feed.order,
        strict=feed.strict,
        concurrency=feed.concurrency,
        priority=feed.priority,
        shared=feed.shared,
        archive=feed.archive,
        failed=feed.failed,
        archive_keep=feed.archive_keep,
        expect_every=feed.expect_every,
        duplicates=feed.duplicates,
        max_size=settings.upload.max_size,
        notify_url=feed.notify_url,
        notify_key=secret.name if (secret := notify_source(feed)) else "",
    )


def _locate(path: Path | None, environ: Mapping[str, str], default: Path) -> Path | None:
    if path is not None:
        return path
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE])
    return default if os.path.lexists(default) else None


def _nothing_found(default: Path) -> str:
    return (
        f"there is none: --config is not given, ${CONFIG_VARIABLE} is not set and {default} does not exist. "
        "Write one with `tablefeed init`; "
        "or begin with `tablefeed config sample > tablefeed.toml`, fill that in "
        "and run `tablefeed check --config tablefeed.toml`; "
        f"or set {FEEDS_VARIABLE} and the other TABLEFEED_ variables"
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except PermissionError:
        raise Fatal(
            f"the configuration {file} may not be read by the user that runs tablefeed",
            "Give that user read permission on the file, and on the directories above it",
            Exit.NO_PERMISSION,
        ) from None
    except FileNotFoundError:
        raise Fatal(
            f"the configuration {file} does not exist",
            f"Name a file that does with --config or ${CONFIG_VARIABLE}, or write this one with `tablefeed init`",
        ) from None
    except OSError as error:
        raise Fatal(
            f"the configuration {file} cannot be read: {error.strerror}",
            f"Name a readable file with --config or ${CONFIG_VARIABLE}",
        ) from None


def _parse(content: bytes) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """The tables of a TOML file, or where and why it is none. Some editors put a byte order mark first."""
    try:
        return tomllib.loads(content.decode("utf-8-sig")), []
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return {}, [(f"line {line}", "is not UTF-8: save the file in that encoding")]
    except tomllib.TOMLDecodeError as error:
        what, _, where = str(error).removesuffix(")").rpartition(" (at ")
        return {}, [(where, f"is not TOML: {what}{_TOML_HINTS.get(what, '')}")]
    except RecursionError:
        return {}, [("", "is not TOML: it is nested too deeply")]


_TOML_HINTS = {"Invalid value": '; text stands in quotes, as in name = "orders", and true and false are written small'}


def _merged(table: dict[str, Any], environment: dict[str, Any]) -> dict[str, Any]:
    """The environment over the file, key by key within a section."""
    values = dict(table)
    for section, own in environment.items():
        below = table.get(section, {})
        if section == "feeds":
            values[section] = own
        elif isinstance(below, dict):
            values[section] = {**below, **own}
    return values


def _validated(values: dict[str, Any], environ: Mapping[str, str]) -> tuple[Settings | None, list[Problem]]:
    """The settings, unless the values cannot be any; and all that is wrong."""
    # Settings would take a key of its own constructor, such as _env_file, for an instruction.
    known = {key: value for key, value in values.items() if key in Settings.model_fields}
    problems: list[Problem] = [((key,), unknown_key((key,))) for key in values if key not in known]
    settings = None
    try:
        settings = Settings(**known)
    except ValidationError as error:
        problems += [(details["loc"], explain(details)) for details in error.errors(include_url=False)]
    return settings, problems + list(contradictions(_parts(known), environ))


def _parts(values: Mapping[str, Any]) -> Parts:
    raw = values.get("feeds")
    raw_feeds = raw if isinstance(raw, list) else []
    checked = [(number, _part(FeedSettings, feed)) for number, feed in enumerate(raw_feeds)]
    return Parts(
        api=_part(ApiSettings, values.get("api", {})),
        upload=_part(UploadSettings, values.get("upload", {})),
        feeds=[(number, feed) for number, feed in checked if feed is not None],
        raw_feeds=[feed for feed in raw_feeds if isinstance(feed, dict)],
    )


def _part(kind: type[S], values: object) -> S | None:
    try:
        return kind.model_validate(values)
    except ValidationError:
        return None
