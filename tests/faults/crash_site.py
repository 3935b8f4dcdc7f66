"""The feeds on which daemons are killed: every way that files end, and small times, so that little waiting is done."""

from pathlib import Path
from typing import Any

from support.daemon import Site

MAX_SIZE = 11 * 2**20
TOO_LARGE = MAX_SIZE + 1

FEEDS: dict[str, dict[str, Any]] = {
    "near": {"datatable_id": "table-456"},
    "far": {"datatable_id": "table-457", "archive": "far"},
    "deleted": {"datatable_id": "table-458", "archive": "delete"},
    "marked": {"datatable_id": "table-501", "ready": "marker"},
    "marked-far": {"datatable_id": "table-502", "ready": "marker", "archive": "marked-far"},
    "tree": {"datatable_id": "table-456", "recursive": True, "archive": "archive/%Y", "duplicates": "skip"},
    "strict": {"datatable_id": "table-457", "strict": True, "settle": "50ms"},
}
"""By name. Those whose archive is named like themselves have it on another file system."""


def crash_site(root: Path, api: str, far: Path, *, concurrency: int = 4) -> Site:
    """A site with all those feeds; `far` is a directory on another file system."""
    site = Site(root, api)
    for name, settings in FEEDS.items():
        archive = {"archive": str(far / name)} if settings.get("archive") == name else {}
        site.feed(name, **settings | archive)
    site.sections = {
        "upload": {"concurrency": concurrency, "stall_timeout": "2s", "max_size": f"{MAX_SIZE}B"},
        "service": {"shutdown_grace": "2s"},
        "watch": {"rescan": "3s"},
        "log": {"format": "json", "level": "info"},
    }
    return site
