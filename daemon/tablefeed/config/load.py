"""Reading the configuration: where it lies, what it says, and everything that is wrong with it, at once."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tablefeed.config.environment import CONFIG_VARIABLE, FEEDS_VARIABLE, EnvironmentSource, Place
from tablefeed.config.keys import key_source
from tablefeed.config.model import ApiSettings, FeedSettings, Section, Settings, UploadSettings
from tablefeed.config.report import explain, path_of, unknown_key
from tablefeed.config.rules import Parts, contradictions
from tablefeed.errors import ConfigInvalid, Exit, Fatal
from tablefeed.model import ApiAccess, Feed

DEFAULT_PATH = Path("/etc/tablefeed/tablefeed.toml")

S = TypeVar("S", bound=Section)


def load(path: Path | None, environ: Mapping[str, str], *, default: Path = DEFAULT_PATH) -> Settings:
    """The settings of a file (`path`, else $TABLEFEED_CONFIG, else `default` if it exists) and of the environment.

    Raises ConfigInvalid with all errors, and Fatal when the file is missing or may not be read.
    """
    environment = EnvironmentSource(environ)
    file = _locate(path, environ, default)
    if file is None and FEEDS_VARIABLE not in environ:
        raise ConfigInvalid("the configuration", [*environment.problems, ("", _nothing_found(default))])
    source = str(file) if file is not None else "the environment"
    table, problems = _parse(_read(file)) if file is not None else ({}, [])
    problems += environment.problems
    if table is None:
        raise ConfigInvalid(source, problems)
    values = _merged(table, environment())
    if FEEDS_VARIABLE in environ and "feeds" not in environment():
        values.pop("feeds", None)
    settings, wrong = _validated(values, environ)
    told = {path for path, _ in problems}
    for place, text in wrong:
        where = path_of(place, environment.origins, values.get("feeds"))
        if where not in told or where != FEEDS_VARIABLE:
            problems.append((where, text))
    if problems or settings is None:
        raise ConfigInvalid(source, problems)
    return settings
