"""What settings demand of each other: pure checks over the parts that are right by themselves."""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tablefeed.config.environment import Place
from tablefeed.config.keys import NO_KEY, find_key
from tablefeed.config.model import ApiSettings, FeedSettings, UploadSettings
from tablefeed.http import is_plain_to_afar
from tablefeed.model import ARCHIVE_DELETE, ARCHIVE_LEAVE, Ready

Problem = tuple[Place, str]
Numbered = Sequence[tuple[int, FeedSettings]]


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a configuration that are right by themselves; None and left out: those that are not."""

    api: ApiSettings | None
    upload: UploadSettings | None
    feeds: Numbered
    raw_feeds: Sequence[Mapping[str, object]]
    """All feeds as they were written."""


_CODE_FIRST = (
    'must begin with a plain directory when recursive = true, as in "archive/%Y-%m", '
    "so that archived files are not taken for new ones"
)


def contradictions(parts: Parts, environ: Mapping[str, str]) -> Iterator[Problem]:
    """All that does not fit together."""
    yield from _without_access(parts, environ)
    yield from _insecure(parts)
    yield from _same_names(parts.feeds)
    yield from _overlaps(parts.feeds)
    for number, feed in parts.feeds:
        if feed.ready is Ready.MARKER and not feed.marker_suffix:
            yield ("feeds", number, "marker_suffix"), 'must not be empty with ready = "marker": use ".done"'
        if feed.notify_secret_file and not feed.notify_url:
            yield ("feeds", number, "notify_secret_file"), "has no effect without notify_url: set it, or leave this out"
        for key, text in _targets(feed):
            yield ("feeds", number, key), text


def _without_access(parts: Parts, environ: Mapping[str, str]) -> Iterator[Problem]:
    if parts.api is None:
        return
    if parts.api.tenant_id is None and any("tenant_id" not in feed for feed in parts.raw_feeds):
        yield ("api", "tenant_id"), "is missing: set it to the id of your tenant, as ProcessMind shows it"
    if find_key(parts.api.api_key_file, environ) is None and any(
        not feed.get("api_key_file") for feed in parts.raw_feeds
    ):
        yield ("api", "api_key_file"), f"is missing: {NO_KEY[0].lower()}{NO_KEY[1:]}"


def _insecure(parts: Parts) -> Iterator[Problem]:
    if parts.upload is None or parts.upload.allow_http:
        return
    text = "sends the API key over plain http: use https, or set upload.allow_http = true if the network is safe"
    if parts.api is not None and is_plain_to_afar(parts.api.base_url):
        yield ("api", "base_url"), text
    for number, feed in parts.feeds:
        if feed.base_url is not None and is_plain_to_afar(feed.base_url):
            yield ("feeds", number, "base_url"), text
        if is_plain_to_afar(feed.notify_url):
            yield ("feeds", number, "notify_url"), text.replace("the API key", "file names and times")


def _same_names(feeds: Numbered) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for number, feed in feeds:
        if first.setdefault(feed.name, number) != number:
            yield (
                ("feeds", number, "name"),
                f"is also the name of feeds[{first[feed.name]}]: give each feed its own",
            )


def _overlaps(feeds: Numbered) -> Iterator[Problem]:
    """Feeds that would take the same files."""
    by_directory: dict[str, list[tuple[int, FeedSettings]]] = {}
    for number, feed in feeds:
        by_directory.setdefault(_normal(feed), []).append((number, feed))
    for directory, neighbours in by_directory.items():
        for place, (number, feed) in enumerate(neighbours):
            for earlier, other in neighbours[:place]:
                yield from _same_patterns(number, feed, earlier, other)
            for parent in _parents(directory):
                for outer, other in by_directory.get(parent, ()):
                    if other.recursive:
                        yield ("feeds", number, "directory"), _inside(outer, other)


def in_both(patterns: Iterable[str], others: Iterable[str]) -> list[str]:
    """Those patterns that two feeds have, which would take the same files of one directory."""
    known = {pattern.lower() for pattern in others}
    return [pattern for pattern in patterns if pattern.lower() in known]


def _same_patterns(number: int, feed: FeedSettings, earlier: int, other: FeedSettings) -> Iterator[Problem]:
    if shared := in_both(feed.include, other.include):
        text = (
            f'holds "{shared[0]}", which feeds[{earlier}] ({other.name}) takes from the same directory: '
            "let only one of the two take it, or give each its own directory"
        )
        yield ("feeds", number, "include"), text


def _inside(outer: int, other: FeedSettings) -> str:
    return (
        f"lies in the directory of feeds[{outer}] ({other.name}), whose recursive = true takes the same files: "
        "move one of the two directories, or set recursive = false there"
    )


def _normal(feed: FeedSettings) -> str:
    # A path may begin with two slashes and mean the same on Linux.
    return "/" + posixpath.normpath(feed.directory).lstrip("/")


def _parents(directory: str) -> Iterator[str]:
    while directory != "/":
        directory = posixpath.dirname(directory)
        yield directory


def _targets(feed: FeedSettings) -> Iterator[tuple[str, str]]:
    """What is wrong with where the feed's files are moved to, by key."""
    failed = _resolved(feed, feed.failed)
    if failed == _normal(feed):
        yield "failed", 'is the feed\'s own directory: use a subdirectory such as "failed"'
    if feed.archive in (ARCHIVE_DELETE, ARCHIVE_LEAVE):
        if feed.archive_keep:
            yield "archive_keep", f'has no effect with archive = "{feed.archive}": leave one of the two out'
        return
    archive = _resolved(feed, feed.archive)
    if archive == _normal(feed):
        yield "archive", 'is the feed\'s own directory: use a subdirectory such as "archive", or "leave"'
    elif archive == failed:
        yield "failed", "is the same directory as `archive`: use another, so that the two are told apart"
    elif feed.recursive and "%" in _first_below(archive, _normal(feed)):
        yield "archive", _CODE_FIRST


def _resolved(feed: FeedSettings, target: str) -> str:
    return "/" + posixpath.normpath(posixpath.join(_normal(feed), target)).lstrip("/")


def _first_below(target: str, directory: str) -> str:
    """The first component of a path below a directory; empty when it lies elsewhere."""
    below = posixpath.relpath(target, directory)
    return "" if below.startswith("../") else below.partition("/")[0]
