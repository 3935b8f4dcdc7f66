"""The configuration: TOML and environment, checked as a whole, with every error told at once."""

from tablefeed.config.changes import needs_restart
from tablefeed.config.keys import KeyFile, KeySource, KeyVariable, key_source
from tablefeed.config.load import DEFAULT_PATH, load, to_feeds
from tablefeed.config.model import FeedSettings, Settings

__all__ = [
    "DEFAULT_PATH",
    "FeedSettings",
    "KeyFile",
    "KeySource",
    "KeyVariable",
    "Settings",
    "key_source",
    "load",
    "needs_restart",
    "to_feeds",
]
