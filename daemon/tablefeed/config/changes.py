"""Which settings a running daemon cannot exchange."""

from tablefeed.config.model import Settings

_EXCHANGED = {"api": {"base_url", "tenant_id", "api_key_file"}, "upload": {"max_size", "bandwidth", "concurrency"}}
"""Keys outside of [[feeds]] that a reload exchanges: those that are part of what a feed is, and limits."""


def needs_restart(running: Settings, wanted: Settings) -> list[str]:
    """The paths of the keys that differ and are read at the start alone."""
    old, new = running.model_dump(exclude={"feeds"}), wanted.model_dump(exclude={"feeds"})
    return [
        f"{section}.{key}"
        for section, values in new.items()
        for key, value in values.items()
        if old[section][key] != value and key not in _EXCHANGED.get(section, ())
    ]
