"""Watches export directories and delivers every file to its ProcessMind datatable."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["ProcessMindClient", "__version__"]

if TYPE_CHECKING:
    from tablefeed.client import ProcessMindClient


def __getattr__(name: str) -> Any:
    """Import the client when it is asked for, so that the commands start without it."""
    if name == "ProcessMindClient":
        from tablefeed.client import ProcessMindClient

        return ProcessMindClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
