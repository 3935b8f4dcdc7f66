"""The configuration: what can be set, and reading it from TOML and the environment."""

from tablefeed.config.keys import KeySource
from tablefeed.config.load import key_source, load, to_feeds
from tablefeed.config.model import Settings

__all__ = ["KeySource", "Settings", "key_source", "load", "to_feeds"]
