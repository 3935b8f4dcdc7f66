"""Options and start-up that several commands share.

What only some commands need, and takes long to import, is imported where it is used: health checks and completion in
shells call commands often.
"""

import os
import re
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tablefeed.cli.whereabouts import feed_names

if TYPE_CHECKING:
    from tablefeed.config import Settings
    from tablefeed.credentials import FileKey

T = TypeVar("T")

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The configuration file. Without it: $TABLEFEED_CONFIG, then /etc/tablefeed/tablefeed.toml. "
        "Every key may also come from the environment, as TABLEFEED_SECTION__KEY.",
        show_default=False,
        readable=False,  # we say ourselves why a file cannot be read
    ),
]


def complete_feed(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of feeds that begin so, for completion in shells; no API key is read.

    A shell takes what is printed for code, so only what can be the name of a feed gets there. A configuration that
    cannot be read has none: this is not the moment to say so.
    """
    config = ctx.params.get("config")
    try:
        names = feed_names(Path(config) if config else None, os.environ)
    except (OSError, ValueError):
        return []
    return [name for name in names if name.startswith(incomplete) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)]


def start(config: Path | None) -> "tuple[Settings, dict[str, FileKey]]":
    """Read configuration and keys, then set up logging. Raises Fatal."""
    from tablefeed.config import load
    from tablefeed.service import read_keys

    settings = load(config, os.environ)
    keys = read_keys(settings, os.environ)
    set_up_logs(settings, keys)
    return settings, keys


def set_up_logs(settings: "Settings", keys: "Mapping[str, FileKey]") -> None:
    """Log to standard error as configured; the keys, as they are at any time, never appear there."""
    from tablefeed import logs
    from tablefeed.config.addresses import password_of

    password = password_of(settings.ledger.url)
    logs.configure(
        settings.log.format,
        settings.log.level,
        sys.stderr,
        lambda: [password, *(key.value for key in keys.values())],
        os.environ.get("JOURNAL_STREAM", ""),
    )
    logs.log_crashes()


def quiet_logs() -> None:
    """For commands that tell their story themselves: only warnings, for people."""
    from tablefeed import logs

    logs.configure("console", "warning", sys.stderr, list)


def parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """An option's value. Raises the usage error that names the option and says what would be right."""
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
