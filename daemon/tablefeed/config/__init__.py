"""The configuration: TOML and environment, checked as a whole, with every error told at once."""

from tablefeed.config.changes import needs_restart
from tablefeed.config.keys import KeyFile, KeySource, KeyVariable, key_source, key_sources, token_source, usable_token
from tablefeed.config.load import DEFAULT_PATH, Loaded, load, load_with_origins, to_feeds
from tablefeed.config.model import FeedSettings, Settings

__all__ = [
    "DEFAULT_PATH",
    "FeedSettings",
    "KeyFile",
    "KeySource",
    "KeyVariable",
    "Loaded",
    "Settings",
    "key_source",
    "key_sources",
    "load",
    "load_with_origins",
    "needs_restart",
    "to_feeds",
    "token_source",
    "usable_token",
]
