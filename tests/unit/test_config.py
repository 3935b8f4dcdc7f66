"""What the configuration accepts, and what it says of the rest."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from support.config import KEY, Site, feed
from tablefeed.config import needs_restart, to_feeds
from tablefeed.config.addresses import masked_database, password_of
from tablefeed.ledger import engine
from tablefeed.model import ApiAccess, Feed, Order, Ready


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_least_file_gives_the_defaults(site: Site) -> None:
    """Tenant, key and one feed are enough; durations are seconds and sizes are bytes."""
    settings = site.load()
    assert settings.api.base_url == "https://api.processmind.com"
    assert settings.api.url_lifetime == 3_600
    assert (settings.api.concurrency, settings.upload.concurrency) == (8, None)
    assert (settings.upload.stall_timeout, settings.upload.refresh_margin) == (60, 60)
    assert (settings.upload.allow_http, settings.upload.ca_file) == (False, None)
    assert settings.upload.max_size == 5 * 2**30
    assert settings.ledger.url == "sqlite:////var/lib/tablefeed/ledger.db"
    assert settings.ledger.history_keep == 90 * 86_400
    assert settings.http.address == ("127.0.0.1", 8787)
    assert (settings.log.format, settings.log.level) == ("auto", "info")
    assert (settings.watch.rescan, settings.watch.polling) == (60, False)
    assert settings.service.shutdown_grace == 30


def test_a_feed_has_the_defaults_of_the_model(site: Site) -> None:
    """A feed that names only what it must is the plain feed of the model, without hidden files and lock files."""
    (made,) = to_feeds(site.load(), {})
    assert made == Feed(
        name="orders",
        directory=Path("/srv/orders"),
        datatable_id="table-1",
        api=ApiAccess("https://api.processmind.com", "tenant-1", f"file {site.key}"),
        exclude=(".*", "~$*"),
    )


def test_every_key_of_a_feed_reaches_the_model(site: Site) -> None:
    """All that a feed can set arrives where the other rooms read it."""
    keys = {
        "dataset_id": "dataset-1",
        "include": ["*.txt"],
        "exclude": ["x*"],
        "recursive": True,
        "ready": "marker",
        "marker_suffix": ".ok",
        "settle": "5s",
        "empty_after": "0s",
        "order": "name",
        "concurrency": 2,
        "priority": -3,
        "archive": "done/%Y",
        "failed": "bad",
        "tenant_id": "tenant-2",
        "api_key_file": "/etc/other-key",
        "base_url": "https://other.example/v1/",
    }
    (made,) = to_feeds(site.load(feeds=[feed(**keys)], upload={"max_size": "1MiB"}), {})
    assert made == Feed(
        name="orders",
        directory=Path("/srv/orders"),
        datatable_id="table-1",
        api=ApiAccess("https://other.example/v1", "tenant-2", "file /etc/other-key"),
        dataset_id="dataset-1",
        include=("*.txt",),
        exclude=("x*",),
        recursive=True,
        ready=Ready.MARKER,
        marker_suffix=".ok",
        settle=5.0,
        empty_after=0.0,
        order=Order.NAME,
        concurrency=2,
        priority=-3,
        archive="done/%Y",
        failed="bad",
        max_size=2**20,
    )


def test_settings_cannot_be_changed(site: Site) -> None:
    """Settings and their sections are frozen."""
    settings = site.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.api = settings.api  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        settings.feeds[0].name = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("section", "key", "value", "text"),
    [
        ("api", "base_url", "api.processmind.com", "must have the form"),
        ("api", "base_url", "https://", "must have the form"),
        ("api", "base_url", "ftp://x.example", "must have the form"),
        ("api", "base_url", "https://x.example:port", "must have the form"),
        ("api", "base_url", "https://x.example/ y", "must have the form"),
        ("api", "base_url", f"https://me:{KEY}@x.example", "without a user or password"),
        ("api", "base_url", f"https://x.example?key={KEY}", 'without "?" and "#"'),
        ("api", "base_url", "http://x.example", "plain http: use https, or set upload.allow_http = true"),
        ("api", "base_url", "http://127.0.0.1.x.example", "plain http"),
        ("api", "tenant_id", "", "must be an id"),
        ("api", "tenant_id", "a/b", "must be an id"),
        ("api", "tenant_id", "a b", "must be an id"),
        ("api", "tenant_id", "..", "must be an id"),
        ("api", "tenant_id", 5, "must be text in quotes, not a number"),
        ("api", "api_key_file", KEY, "must be an absolute path"),
        ("api", "url_lifetime", "999ms", 'must be at least "1s"'),
        ("api", "url_lifetime", 3600, 'has no unit: use "3600s"'),
        ("api", "url_lifetime", True, "must be a duration in quotes"),
        ("api", "url_lifetime", "1 hour", 'write it like "30s"'),
        ("api", "concurrency", 0, "must be at least 1, not 0"),
        ("api", "concurrency", "8", "must be a whole number without quotes, as in 8, not text"),
        ("api", "concurrency", True, "must be a whole number"),
        ("api", "concurrency", 1.5, "not a fraction"),
        ("upload", "concurrency", 0, "must be at least 1"),
        ("upload", "concurrency", "8", 'must be a whole number without quotes, as in 8, or "auto"'),
        ("upload", "concurrency", "automatic", 'or "auto"'),
        ("upload", "concurrency", True, 'or "auto"'),
        ("upload", "stall_timeout", "0s", 'must be at least "1ms"'),
        ("upload", "refresh_margin", "-1s", "is not a duration"),
        ("upload", "allow_http", "yes", "must be true or false, without quotes, not text"),
        ("upload", "allow_http", 1, "must be true or false"),
        ("upload", "ca_file", "ca.pem", "must be an absolute path"),
        ("upload", "max_size", "0", "must be more than 0"),
        ("upload", "max_size", 5 * 2**30 + 1, 'at most "5GiB"'),
        ("upload", "max_size", -1, "must be a size"),
        ("upload", "max_size", "5 gigs", 'write it like "64MiB"'),
        ("ledger", "url", f"postgresql+psycopg://me:{KEY}@db", "postgresql+psycopg://user:password@host/database"),
        ("ledger", "url", f"postgresql+asyncpg://me:{KEY}@db/x", "postgresql+psycopg://user:password@host/database"),
        ("ledger", "url", f"postgres://me:{KEY}@db:port/x", "percent-encoded"),
        ("fleet", "node", "north/1", "must be letters, digits, dots, dashes and underscores"),
        ("ledger", "url", f"postgresql+psycopg2://me:{KEY}@db/x", "postgresql+psycopg://user:password@host/database"),
        ("ledger", "url", f"postgresql:me:{KEY}@db/x", "must have the form"),
        ("ledger", "url", f"postgres://me:{KEY}@db", "must have the form"),
        ("ledger", "url", f"postgres://me:{KEY}@db/", "must have the form"),
        ("ledger", "url", f"postgres://me:{KEY}@db/x/y", "must have the form"),
        ("ledger", "url", f"postgres://me:{KEY}/1@db/x", "percent-encoded"),
        ("ledger", "url", f"postgres://me:12/{KEY}@db", "percent-encoded"),
        ("ledger", "url", f"postgres://me:1@{KEY}@db/x", "percent-encoded"),
        ("ledger", "url", f"postgres://me:{KEY}?@db/x", "percent-encoded"),
        ("ledger", "url", f"postgres://me:12?{KEY}@db/x", "percent-encoded"),
        ("ledger", "url", f"postgres://me:12#{KEY}@db/x", "percent-encoded"),
        ("ledger", "url", f"postgres://me:{KEY} @db/x", "must have the form"),
        ("ledger", "url", f"mysql://me:{KEY}@db/x", 'use "sqlite:////var/lib/tablefeed/ledger.db"'),
        ("ledger", "url", "sqlite:///ledger.db", "four slashes"),
        ("ledger", "url", "sqlite://", "four slashes"),
        ("ledger", "url", "/var/lib/ledger.db", "four slashes"),
        ("http", "listen", "8787", 'must have the form "127.0.0.1:8787"'),
        ("http", "listen", "localhost:65536", "must have the form"),
        ("http", "listen", "::1:8787", "must have the form"),
        ("log", "format", "jsn", 'must be one of "auto", "json", "console": did you mean "json"?'),
        ("log", "level", "quiet", 'must be one of "debug", "info", "warning", "error"'),
        ("watch", "rescan", "0s", 'must be at least "1s"'),
        ("feeds", "name", "", "must begin with a letter or digit"),
        ("feeds", "name", "-x", "must begin with a letter or digit"),
        ("feeds", "name", "a/b", "must begin with a letter or digit"),
        ("feeds", "name", "a\n", "must begin with a letter or digit"),
        ("feeds", "directory", "exports", "must be an absolute path"),
        ("feeds", "directory", "", "must be an absolute path"),
        ("feeds", "directory", "/a\0b", "must be an absolute path"),
        ("feeds", "directory", 5, "must be an absolute path"),
        ("feeds", "datatable_id", "a b", "must be an id"),
        ("feeds", "dataset_id", "", "must be an id"),
        ("feeds", "include", "*.csv", 'must be a list, as in ["*.csv"], not text'),
        ("feeds", "include", [], "is empty: name at least one pattern"),
        ("feeds", "ready", "markr", 'must be one of "closed", "stable", "marker": did you mean "marker"?'),
        ("feeds", "order", 1, 'must be one of "oldest", "newest", "name"'),
        ("feeds", "settle", "5", 'has no unit; write it like "5s"'),
        ("feeds", "marker_suffix", "/x", "must be the end of a file name"),
        ("feeds", "concurrency", -1, "must be at least 0, not -1"),
        ("feeds", "archive", "", "must name a directory"),
        ("feeds", "archive", "%Q", 'has the unknown code "%Q": allowed are %a'),
        ("feeds", "archive", "x%", "has the unknown code"),
        ("feeds", "archive", "%D", "has the unknown code"),
        ("feeds", "archive", "a/../../b", 'must not hold ".."'),
        ("feeds", "archive", ".", "is the feed's own directory"),
        ("feeds", "archive", "/srv//orders/", "is the feed's own directory"),
        ("feeds", "failed", "", "must name a directory"),
        ("feeds", "failed", "delete", 'so "delete" is for `archive` only'),
        ("feeds", "failed", "leave", 'so "leave" is for `archive` only'),
        ("feeds", "failed", "%Y", "must be a plain directory"),
        ("feeds", "failed", "../x", 'must not hold ".."'),
        ("feeds", "failed", "./archive/", "is the same directory as `archive`"),
        ("feeds", "failed", "/srv/orders/archive", "is the same directory as `archive`"),
        ("feeds", "failed", ".", "is the feed's own directory"),
        ("feeds", "base_url", "http://x.example", "plain http"),
    ],
)
def test_wrong_values_are_refused(site: Site, section: str, key: str, value: Any, text: str) -> None:
    """A wrong value is one error, which names the key and says what would be right, and holds no secret."""
    if section == "feeds":
        found = site.problems(feeds=[feed(**{key: value})])
        name = "" if key == "name" else " (orders)"
        assert list(found) == [f"feeds[0]{name}.{key}"]
    else:
        found = site.problems(**{section: {**(site.api if section == "api" else {}), key: value}})
        assert list(found) == [f"{section}.{key}"]
    assert text in next(iter(found.values()))
    assert KEY not in str(found)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("api", "base_url", "http://127.0.0.1:8800"),
        ("api", "base_url", "http://localhost:8800/api"),
        ("api", "base_url", "http://[::1]:8800"),
        ("http", "listen", ""),
        ("http", "listen", "[::1]:0"),
        ("http", "listen", "0.0.0.0:80"),
        ("upload", "max_size", 1),
        ("feeds", "archive", "delete"),
        ("feeds", "archive", "leave"),
        ("feeds", "archive", "/srv/archive/%Y/100%%"),
        ("feeds", "archive", "%Y-%m"),
        ("feeds", "settle", "0s"),
        ("feeds", "marker_suffix", ""),
        ("feeds", "exclude", []),
        ("feeds", "api_key_file", ""),
    ],
)
def test_unusual_values_are_taken(site: Site, section: str, key: str, value: Any) -> None:
    """What looks odd and is right is no error."""
    if section == "feeds":
        assert site.load(feeds=[feed(**{key: value})])
    else:
        assert site.load(**{section: {**(site.api if section == "api" else {}), key: value}})


@pytest.mark.parametrize(("listen", "address"), [("", None), ("[::1]:80", ("::1", 80)), ("a.b-c:0", ("a.b-c", 0))])
def test_the_address_is_split(site: Site, listen: str, address: tuple[str, int] | None) -> None:
    """Host and port are given apart, an IPv6 address without its brackets."""
    assert site.load(http={"listen": listen}).http.address == address


def test_plain_http_is_taken_when_allowed(site: Site) -> None:
    """Where the operator says that the network is safe, plain http may leave the machine."""
    api = {**site.api, "base_url": "http://x.example"}
    assert site.load(api=api, upload={"allow_http": True})


@pytest.mark.parametrize(
    ("section", "keys", "path", "text"),
    [
        ("api", {"tennant_id": KEY}, "api.tennant_id", "did you mean tenant_id?"),
        ("api", {"api-key": KEY}, "api.api-key", "did you mean api_key_file?"),
        ("api", {"rescan": KEY}, "api.rescan", "it belongs in [watch]"),
        ("api", {"directory": KEY}, "api.directory", "it belongs in [[feeds]]"),
        ("log", {"colour": KEY}, "log.colour", "allowed are format, level"),
        ("feed", {"x": KEY}, "feed", "did you mean feeds?"),
        ("_env_file", {"x": KEY}, "_env_file", "allowed are api, feeds"),
        ("tenant_id", {"x": KEY}, "tenant_id", "it belongs in [api]"),
    ],
)
def test_unknown_keys_are_refused(site: Site, section: str, keys: dict[str, str], path: str, text: str) -> None:
    """An unknown key is an error that suggests the right one and does not repeat the value."""
    found = site.problems(**{section: {**(site.api if section == "api" else {}), **keys}})
    assert list(found) == [path]
    assert text in found[path]
    assert KEY not in str(found)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("hooks.example/x", 'must have the form "https://hooks.example.com/path"'),
        ("https://hooks.example/a b", "must have the form"),
        ("ftp://hooks.example/x", "must have the form"),
        ("https://me:s3cret-w0rd@hooks.example/x", "without a user or password: use notify_secret_file"),
        ("https://hooks.example/x#part", 'without "#"'),
        ("http://hooks.example/x", "sends file names and times over plain http: use https, or set upload.allow_http"),
    ],
)
def test_a_webhook_that_cannot_be_used_is_refused_and_not_repeated(site: Site, url: str, text: str) -> None:
    """Its path is a secret, often, and so is what stands before an @."""
    found = site.problems(feeds=[feed(notify_url=url)])
    assert list(found) == ["feeds[0] (orders).notify_url"]
    assert text in found["feeds[0] (orders).notify_url"]
    assert "s3cret" not in str(found)
    assert "/x" not in str(found)


def test_plain_http_to_a_webhook_needs_loopback_or_leave(site: Site) -> None:
    """As for all that leaves the machine."""
    here = site.load(feeds=[feed(notify_url="http://127.0.0.1:9/x")])
    afar = site.load(feeds=[feed(notify_url="http://hooks.example/x")], upload={"allow_http": True})
    assert (here.feeds[0].notify_url, afar.feeds[0].notify_url) == ("http://127.0.0.1:9/x", "http://hooks.example/x")


def test_a_webhook_secret_without_a_webhook_is_refused(site: Site) -> None:
    """A key that would do nothing is not taken in silence."""
    found = site.problems(feeds=[feed(notify_secret_file="/etc/secret")])
    assert found == {
        "feeds[0] (orders).notify_secret_file": "has no effect without notify_url: set it, or leave this out"
    }


@pytest.mark.parametrize("archive", ["delete", "leave"])
def test_archive_keep_without_an_archive_is_refused(site: Site, archive: str) -> None:
    """A key that would do nothing is not taken in silence."""
    found = site.problems(feeds=[feed(archive=archive, archive_keep="7d")])
    assert found == {
        "feeds[0] (orders).archive_keep": f'has no effect with archive = "{archive}": leave one of the two out'
    }


def test_what_a_reload_cannot_change_is_named(site: Site) -> None:
    """What makes a feed what it is, and the bandwidth, apply at once; the rest is told by its path."""
    running = site.load()
    api = site.api | {"tenant_id": "tenant-2", "concurrency": 2}
    wanted = site.load(
        api=api, upload={"max_size": "1GiB", "concurrency": 3, "bandwidth": "1MiB/s"}, log={"level": "debug"}
    )
    assert needs_restart(running, running) == []
    assert needs_restart(running, wanted) == ["api.concurrency", "log.level"]


def test_all_errors_are_told_together(site: Site) -> None:
    """Errors of the file, the environment, and between feeds that are right by themselves come in one report."""
    found = site.problems(
        {"TABLEFEED_UPLOAD__CONCURRENCY": "many", "TABLEFEED_HTTP__LISTENS": ""},
        colour={},
        api={"concurrency": 0, "tenant_id": "t"},
        feeds=[feed(), feed(name="b", include=["*.txt"], directory="x"), feed(datatable_id="t2"), {"name": "c"}],
    )
    assert set(found) == {
        "TABLEFEED_UPLOAD__CONCURRENCY",
        "TABLEFEED_HTTP__LISTENS",
        "colour",
        "api.concurrency",
        "feeds[1] (b).directory",
        "feeds[2] (orders).name",
        "feeds[2] (orders).include",
        "feeds[3] (c).directory",
        "feeds[3] (c).datatable_id",
    }


def test_missing_access_is_told_beside_wrong_feeds(site: Site) -> None:
    """That tenant and key are missing is told even when the feeds have errors of their own."""
    found = site.problems(api={}, feeds=[feed(colour=1)])
    assert set(found) == {"api.tenant_id", "api.api_key_file", "feeds[0] (orders).colour"}
    assert "TABLEFEED_API_KEY" in found["api.api_key_file"]


def test_feeds_may_bring_all_access_themselves(site: Site) -> None:
    """Where every feed has its own tenant and key, [api] needs none."""
    own = {"tenant_id": "t", "api_key_file": str(site.key)}
    assert site.load(api={}, feeds=[feed(**own)])
    other = feed(name="b", directory="/srv/b")
    assert set(site.problems(api={}, feeds=[feed(**own), other])) == {"api.tenant_id", "api.api_key_file"}


@pytest.mark.parametrize(
    ("sections", "path", "text"),
    [
        ({"feeds": []}, "feeds", "is missing: name at least one feed"),
        ({"feeds": {"name": "x"}}, "feeds", "must be a list: sections [[feeds]] in a file"),
        ({"upload": [{}]}, "upload", "must be a section: write [upload]"),
        ({"feeds": [{"name": "x", "directory": "/x"}]}, "feeds[0] (x).datatable_id", 'as in "table-456"'),
    ],
)
def test_wrong_shapes_are_refused(site: Site, sections: dict[str, Any], path: str, text: str) -> None:
    """A section of the wrong kind, or one that is missing, says how it is written."""
    found = site.problems(**sections)
    assert text in found[path]


@pytest.mark.parametrize(
    ("first", "second", "path", "text"),
    [
        ({}, {"directory": "/srv/b"}, "feeds[1] (orders).name", "is also the name of feeds[0]"),
        (
            {},
            {"name": "b", "directory": "/srv/x/../orders/", "include": ["*.XLSX"]},
            "feeds[1] (b).include",
            'holds "*.XLSX", which feeds[0] (orders) takes from the same directory',
        ),
        (
            {"recursive": True},
            {"name": "b", "directory": "/srv/orders/x/y"},
            "feeds[1] (b).directory",
            "lies in the directory of feeds[0] (orders), whose recursive = true",
        ),
        (
            {"directory": "/srv/orders/x"},
            {"name": "b", "directory": "/", "recursive": True, "include": ["a"]},
            "feeds[0] (orders).directory",
            "lies in the directory of feeds[1] (b)",
        ),
    ],
)
def test_feeds_that_take_the_same_files_are_refused(
    site: Site, first: dict[str, Any], second: dict[str, Any], path: str, text: str
) -> None:
    """No file can belong to two feeds; the error names both."""
    found = site.problems(feeds=[feed(**first), feed(**second)])
    assert list(found) == [path]
    assert text in found[path]


@pytest.mark.parametrize(
    "second",
    [
        {"include": ["*.txt"]},
        {"directory": "/srv/orders/sub"},
        {"directory": "/srv/orders-2"},
        {"directory": "/srv"},
    ],
)
def test_neighbouring_feeds_are_taken(site: Site, second: dict[str, Any]) -> None:
    """Feeds that share a directory but no pattern, or lie in each other's without recursion, get along."""
    assert site.load(feeds=[feed(), feed(name="b", **second)])


@pytest.mark.parametrize(("archive", "fine"), [
    ("%Y", False),
    ("a%Y/x", False),
    ("./%Y", False),
    ("/srv/orders/%Y", False),
    ("archive/%Y", True),
    ("/srv/archive/%Y", True),
    ("/srv/orders/archive/%Y", True),
    ("leave", True),
])  # fmt: skip
def test_recursive_feeds_do_not_find_their_archive(site: Site, archive: str, fine: bool) -> None:
    """A recursive feed's archive begins with a name that scans can leave out."""
    feeds = [feed(recursive=True, archive=archive)]
    if fine:
        assert site.load(feeds=feeds)
    else:
        assert "must begin with a plain directory" in site.problems(feeds=feeds)["feeds[0] (orders).archive"]


def test_a_marker_needs_a_suffix(site: Site) -> None:
    """Without a suffix each file would be its own marker."""
    found = site.problems(feeds=[feed(ready="marker", marker_suffix="")])
    assert "must not be empty" in found["feeds[0] (orders).marker_suffix"]


def test_five_hundred_feeds_load_at_once(site: Site) -> None:
    """A large configuration costs no noticeable time."""
    path = site.write(feeds=[feed(name=f"f{n}", directory=f"/srv/{n}", recursive=True) for n in range(500)])
    began = time.process_time()
    settings = site.load_as_is(path)
    assert len(to_feeds(settings, {})) == 500
    assert time.process_time() - began < 1.0


ODD = "p@ss/w?rd#%:é"
"""A password that must be percent-encoded."""


@pytest.mark.parametrize(
    ("url", "password", "shown"),
    [
        ("postgresql+psycopg://me:s3cret@db/x", "s3cret", "postgresql+psycopg://me:[hidden]@db/x"),
        ("postgres://me:s3cret@db:5433/x?sslmode=require", "s3cret", "postgresql+psycopg://me:[hidden]@db:5433/x"),
        ("postgresql://me@db/x", "", "postgresql+psycopg://me@db/x"),
        ("postgresql://db/x?password=s3cret&user=me", "s3cret", "postgresql+psycopg://db/x"),
        (f"postgresql://me:{quote(ODD, safe='')}@[::1]/x", ODD, "postgresql+psycopg://me:[hidden]@[::1]/x"),
        ("postgresql://me:me@db/x", "", "postgresql+psycopg://me:[hidden]@db/x"),
        ("sqlite:////var/lib/ledger.db", "", "sqlite:////var/lib/ledger.db"),
    ],
)
def test_the_ledgers_password_is_known_and_never_shown(site: Site, url: str, password: str, shown: str) -> None:
    """It is taken out of whatever is logged, unless it is a word that is shown anyway; SQLAlchemy reads it alike."""
    taken = site.load(ledger={"url": url}).ledger.url
    assert password_of(taken) == password
    assert masked_database(taken) == shown
    read = sa.make_url(taken)
    assert (read.password or read.query.get("password")) in (password or None, "me")
    assert not password or password not in engine.describe(taken)
