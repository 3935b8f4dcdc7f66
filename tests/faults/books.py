"""The books: what producers dropped, and whether store, archive, ledger and drop directory account for all of it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from support.daemon import Site
from tablefeed.archive.report import REPORT_SUFFIX
from tablefeed.model import OWN_PREFIX

OPEN = "SELECT count(*) FROM files WHERE closed_at IS NULL OR left_in_place"
ROWS = "SELECT id, feed, path, state, size, md5, destination, closed_at, left_in_place, reason FROM files ORDER BY id"


class Fate(Enum):
    """What must become of a version."""

    DUE = "due"
    """Delivered once."""
    OPTIONAL = "optional"
    """Delivered once or not at all: its producer took it away or changed it."""
    REFUSED = "refused"
    """Set aside."""


@dataclass(slots=True)
class Drop:
    """One version that a producer made. Each has content that no other has."""

    number: int
    feed: str
    path: str
    md5: str
    size: int
    fate: Fate = Fate.DUE

    def __str__(self) -> str:
        return f"{self.feed}/{self.path} (version {self.number}, {self.size} bytes)"


def digest(path: Path) -> str:
    """The MD5 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@dataclass(slots=True)
class Findings:
    """What is wrong, by kind."""

    lost: list[str] = field(default_factory=list)
    halved: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Findings") -> "Findings":
        self.lost += other.lost
        self.halved += other.halved
        self.doubled += other.doubled
        self.other += other.other
        return self

    def __iter__(self) -> Iterator[str]:
        yield from (f"lost: {it}" for it in self.lost)
        yield from (f"halved: {it}" for it in self.halved)
        yield from (f"second object: {it}" for it in self.doubled)
        yield from self.other

    def __str__(self) -> str:
        return "\n".join(self) or "the books are clean"


class Books:
    """What was dropped."""

    def __init__(self) -> None:
        self.drops: dict[str, Drop] = {}
        """By the MD5 of the content."""
        self.next_number = 1

    def note(self, feed: str, path: str, content: bytes, fate: Fate = Fate.DUE) -> Drop:
        """Note a version, before anybody can see it."""
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        assert md5 not in self.drops, "each version must have content of its own"
        drop = self.drops[md5] = Drop(self.next_number, feed, path, md5, len(content), fate)
        self.next_number += 1
        return drop

    def forget(self, drop: Drop) -> None:
        """Take back a version that nobody has seen."""
        del self.drops[drop.md5]

    def audit(self, site: Site, objects: Path, *, excused: Collection[str] = ()) -> Findings:
        """Compare everything, once the daemon has ended.

        `excused`: objects whose grants had been declared invalid, as paths below `objects`.
        """
        findings = Findings()
        rows = site.rows(ROWS)
        stored = self._audit_objects(objects, excused, findings)
        self._audit_rows(rows, stored, findings)
        for feed in site.feeds:
            mine = [row for row in rows if row["feed"] == feed]
            self._audit_archive(site, feed, mine, findings)
            self._audit_failed(site, feed, mine, findings)
            findings.other += [f"left behind: {path}" for path in leftovers(site, feed)]
            findings.other += [f"still in the drop directory: {path}" for path in dropped(site, feed)]
        return findings

    def _audit_objects(self, objects: Path, excused: Collection[str], findings: Findings) -> Counter[str]:
        """Each object must be a version, whole; returns how many objects count for each."""
        stored: dict[str, list[str]] = defaultdict(list)
        for path in sorted(objects.rglob("*")):
            if not path.is_file():
                continue
            md5, key = digest(path), str(path.relative_to(objects))
            if md5 not in self.drops:
                findings.halved.append(
                    f"the object {key} of {path.stat().st_size} bytes is no version that was dropped"
                )
            else:
                stored[md5].append(key)
        for md5, drop in self.drops.items():
            keys = stored[md5]
            counted = [key for key in keys if key not in excused]
            if not keys and drop.fate is Fate.DUE:
                findings.lost.append(str(drop))
            if len(counted) > 1:
                findings.doubled.append(f"{drop} has {len(counted)}: {', '.join(counted)}")
            if keys and drop.fate is Fate.REFUSED:
                findings.other.append(f"delivered, though it must be refused: {drop}")
        return Counter({md5: len(keys) for md5, keys in stored.items()})

    def _audit_rows(self, rows: list[dict[str, Any]], stored: Counter[str], findings: Findings) -> None:
        """Each version that is due has one archived row, each archived row an object, and no row is open."""
        delivered: Counter[str] = Counter()
        for row in rows:
            name = f"row {row['id']} ({row['feed']}/{row['path']}, {row['state']})"
            if row["closed_at"] is None or row["left_in_place"]:
                findings.other.append(f"the ledger is not done with {name}: {row['reason']}")
            if row["state"] not in ("archived", "skipped"):
                continue
            drop = self.drops.get(row["md5"])
            if drop is None or (drop.feed, drop.path, drop.size) != (row["feed"], row["path"], row["size"]):
                findings.halved.append(f"{name} counts as delivered, but is no version that was dropped")
            elif not stored[drop.md5]:
                findings.lost.append(f"{name} counts as delivered, but the store does not have {drop}")
            delivered[row["md5"]] += 1
        for drop in self.drops.values():
            if drop.fate is Fate.DUE and delivered[drop.md5] != 1:
                findings.other.append(f"{delivered[drop.md5]} rows say that it was delivered: {drop}")

    def _audit_archive(self, site: Site, feed: str, rows: list[dict[str, Any]], findings: Findings) -> None:
        """Archive and ledger name the same files, each whole, each version that is due once."""
        root = archive_of(site, feed)
        if root is None:
            return
        suffix = marker_of(site, feed)
        present = {str(path) for path in root.rglob("*") if path.is_file() and not path.name.startswith(OWN_PREFIX)}
        markers = {path for path in present if suffix and path.endswith(suffix)}
        wanted = {str(row["destination"]): row for row in rows if row["state"] == "archived" and row["destination"]}
        archived = {row["md5"] for row in wanted.values()}
        for path in sorted(present - markers - wanted.keys()):
            findings.other.append(f"the archive has what the ledger does not know: {path}")
        for path, row in wanted.items():
            if path not in present:
                findings.other.append(f"row {row['id']} says that it was archived, but it is not there: {path}")
            elif digest(Path(path)) != row["md5"]:
                findings.other.append(f"row {row['id']} has other content than its archived file: {path}")
            elif suffix and path + suffix not in markers and self.drops[row["md5"]].fate is Fate.DUE:
                findings.other.append(f"archived without its marker: {path}")
        for drop in self.drops.values():
            if drop.feed == feed and drop.fate is Fate.DUE and drop.md5 not in archived:
                findings.other.append(f"not archived: {drop}")

    def _audit_failed(self, site: Site, feed: str, rows: list[dict[str, Any]], findings: Findings) -> None:
        """Only what must be refused is set aside, once, with its report, and the ledger knows."""
        suffix = marker_of(site, feed)
        failed = Path(site.feeds[feed]["directory"]) / site.feeds[feed].get("failed", "failed")
        known = {str(row["destination"]): row for row in rows if row["state"] == "rejected"}
        seen: Counter[str] = Counter()
        for path in failed.rglob("*"):
            is_ours = path.name.startswith(OWN_PREFIX) or path.name.endswith((REPORT_SUFFIX, *filter(None, [suffix])))
            if is_ours or not path.is_file():
                continue
            drop = self.drops.get(digest(path))
            if drop is None or drop.fate is not Fate.REFUSED:
                reason = known.get(str(path), {}).get("reason")
                findings.other.append(f"set aside, though it can be delivered: {drop or path} ({reason})")
            elif not path.with_name(path.name + REPORT_SUFFIX).exists() or str(path) not in known:
                findings.other.append(f"set aside without a report or a row: {drop}")
            else:
                seen[drop.md5] += 1
        for drop in self.drops.values():
            if drop.feed == feed and drop.fate is Fate.REFUSED and seen[drop.md5] != 1:
                findings.other.append(f"set aside {seen[drop.md5]} times: {drop}")


def archive_of(site: Site, feed: str) -> Path | None:
    """The directory that a feed's files are archived below, if they are."""
    settings = site.feeds[feed]
    archive: str = settings.get("archive", "archive")
    fixed = Path(settings["directory"]) / archive.partition("%")[0]
    return None if archive in ("delete", "leave") else fixed


def marker_of(site: Site, feed: str) -> str:
    """The suffix of a feed's markers; empty where it has none."""
    return ".done" if site.feeds[feed].get("ready") == "marker" else ""


def dropped(site: Site, feed: str) -> list[Path]:
    """What lies in a feed's directory and is for the daemon to take."""
    directory = Path(site.feeds[feed]["directory"])
    ends = [archive_of(site, feed), directory / site.feeds[feed].get("failed", "failed")]
    return [
        path
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(".") and not any(end in path.parents for end in ends)
    ]


def leftovers(site: Site, feed: str) -> list[Path]:
    """The daemon's own hidden files in a feed's directories."""
    roots = {Path(site.feeds[feed]["directory"]), archive_of(site, feed)}
    return [path for root in roots if root for path in root.rglob(OWN_PREFIX + "*")]


def unfinished(site: Site) -> Mapping[str, int]:
    """What is still to be done: open rows, and dropped files by feed; empty when all is done."""
    counts = {feed: len(dropped(site, feed)) for feed in site.feeds}
    counts["open rows"] = sum(site.rows(OPEN)[0].values())
    return {name: count for name, count in counts.items() if count}
