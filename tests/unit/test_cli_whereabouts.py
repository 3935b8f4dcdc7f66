"""Where the daemon of a configuration is: the quick look finds what the thorough one does."""

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from support.config import Site, feed
from tablefeed.cli import whereabouts as quick
from tablefeed.cli.whereabouts import feed_names, lock_holder, whereabouts
from tablefeed.config import DEFAULT_PATH
from tablefeed.config.addresses import parse_listen
from tablefeed.config.environment import CONFIG_VARIABLE, FEEDS_VARIABLE
from tablefeed.ledger.sqlite import Lock


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_same_names_and_places_are_looked_at() -> None:
    """They are written a second time, since the first ones take long to import."""
    assert (quick.DEFAULT_PATH, quick.CONFIG_VARIABLE) == (DEFAULT_PATH, CONFIG_VARIABLE)
    assert quick.FEEDS_VARIABLE == FEEDS_VARIABLE


@pytest.mark.parametrize(
    ("sections", "environ"),
    [
        ({}, {}),
        ({"http": {"listen": ""}}, {}),
        ({"http": {"listen": "127.0.0.2:99"}}, {}),
        ({"http": {"listen": "[::1]:99"}}, {}),
        ({"http": {"listen": "somewhere:99"}}, {"TABLEFEED_HTTP__LISTEN": "127.0.0.1:1"}),
        ({"ledger": {"url": "sqlite:////var/l.db"}}, {"TABLEFEED_HTTP__LISTEN": ""}),
        ({"ledger": {"url": "sqlite:////var/l.db"}}, {"TABLEFEED_LEDGER__URL": "sqlite:////var/m.db"}),
        ({"feeds": [feed(name="a"), feed(name="b", directory="/srv/b")]}, {}),
        ({}, {FEEDS_VARIABLE: json.dumps([feed(name="elsewhere")])}),
    ],
)
def test_it_finds_what_the_settings_say(site: Site, sections: dict[str, object], environ: dict[str, str]) -> None:
    """From the file, from the environment that goes before it, and from the defaults."""
    settings = site.load(environ, **sections)
    found = whereabouts(site.path, environ)
    assert found.address == parse_listen(settings.http.listen)
    assert f"sqlite:///{found.ledger}" == settings.ledger.url
    assert feed_names(site.path, environ) == [it.name for it in settings.feeds]
    assert whereabouts(None, environ | {CONFIG_VARIABLE: str(site.path)}) == found


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_database_has_no_lock_here_but_a_node(site: Site, scheme: str) -> None:
    """Called as the settings say, else as its host; the password is not in what is printed of it."""
    url = f"{scheme}://me:s3cret@db/x\n"
    settings = site.load({}, ledger={"url": url}, fleet={"node": "north"})
    found = whereabouts(site.path, {})
    assert (found.ledger, found.url, found.node) == (None, settings.ledger.url, "north")
    assert whereabouts(site.path, {"TABLEFEED_FLEET__NODE": ""}).node == socket.gethostname()
    assert "s3cret" not in repr(found)


def test_without_a_file_the_environment_and_the_defaults_tell(tmp_path: Path) -> None:
    """As in a container that has none."""
    found = whereabouts(None, {"TABLEFEED_HTTP__LISTEN": ":99"}, default=tmp_path / "nonesuch")
    assert (found.address, found.ledger) == (("127.0.0.1", 99), Path("/var/lib/tablefeed/ledger.db"))


@pytest.mark.parametrize(("listen", "host"), [(":99", "127.0.0.1"), ("0.0.0.0:99", "127.0.0.1"), ("[::]:99", "::1")])
def test_all_addresses_are_asked_on_this_machine(site: Site, listen: str, host: str) -> None:
    """There is no address that means all when one connects."""
    assert whereabouts(site.write(http={"listen": listen}), {}).address == (host, 99)


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    """As long as it is held."""
    ledger = tmp_path / "ledger.db"
    assert lock_holder(ledger) is None
    lock = Lock(tmp_path / "ledger.db.lock")
    assert lock_holder(ledger) == str(os.getpid())
    lock.release()
    assert lock_holder(ledger) is None


def test_who_looks_at_the_lock_keeps_no_daemon_from_starting(tmp_path: Path) -> None:
    """However often somebody looks."""
    ledger = tmp_path / "ledger.db"
    Lock(tmp_path / "ledger.db.lock").release()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            lock_holder(ledger)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(2_000):
            Lock(tmp_path / "ledger.db.lock").release()
    finally:
        ended.set()
        for looker in lookers:
            looker.join()
