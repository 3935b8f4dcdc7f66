"""Who may read what holds a secret, how long it is kept, and where a key shows that was typed in the wrong place."""

import asyncio
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from support import config
from support.archive import UPLOADED_AT, HookedDisk, archiving, drop, feed_at, other_file_system
from support.daemon import KEY, Site, command
from support.leaks import Search
from support.ledgers import RECEIPT, opened, version
from tablefeed.config.keys import KeyFile, KeyVariable
from tablefeed.config.model import SECTIONS, FeedSettings, Section, Settings
from tablefeed.credentials import FileKey
from tablefeed.errors import ConfigInvalid, FileRefused
from tablefeed.ledger import Closing, Failure, Ledger, Want
from tablefeed.model import Entry, Grant, Order, State
from tablefeed.sandbox.server import SandboxSettings, running
from tablefeed.sandbox.sigv4 import Credentials, Received

TYPED = "pm-live-4f9c2e7ab1d84c05"
"""A key that somebody has set under a wrong name."""
SIGNATURE = "5ecre7" * 8
SIGNED = f"https://store.example/k?X-Amz-Signature={SIGNATURE}"
GRANT = Grant(SIGNED, 1_700_003_600_000, 3600.0)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


NAMES = ("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock")


@pytest.mark.parametrize("readable_by_all", [None, *NAMES])
async def test_whatever_belongs_to_the_ledger_is_its_owners_alone(tmp_path: Path, readable_by_all: str | None) -> None:
    """Database, journal, shared memory and lock have mode 0600, whatever the umask and whatever a dead daemon left."""
    place = tmp_path / "new" / "ledger"
    with umask(0):
        if readable_by_all is not None:
            async with opened(tmp_path / "ledger.db") as ledger:
                await ledger.enqueue([version()])
                place.mkdir(mode=0o700, parents=True)
                for name in NAMES:
                    shutil.copy(tmp_path / name, place / name)
            (place / readable_by_all).chmod(0o666)
        async with opened(place / "ledger.db") as ledger:
            await ledger.enqueue([version("b.csv")])
            assert {path.name: mode(path) for path in place.iterdir()} == dict.fromkeys(NAMES, 0o600)
    assert mode(place) == 0o700


async def test_no_directory_is_more_open_than_the_one_it_is_made_in(tmp_path: Path) -> None:
    """Archive, `failed` and the ledger's directories give nobody more than what is around them, without a umask too."""
    private = tmp_path / "private"
    private.mkdir(mode=0o750)
    async with running(SandboxSettings(tmp_path / "processmind", KEY)) as sandbox:
        site = Site(private, sandbox.base_url)
        site.sections = {
            "upload": {"max_size": "1KiB"},
            "ledger": {"url": f"sqlite:///{private}/state/of/ledger.db"},
        }
        orders = site.feed("orders", archive="archive/%Y")
        (orders / "large.csv").write_bytes(b"x" * 2000)
        (orders / "small.csv").write_bytes(b"x")
        orders.chmod(0o750)
        site.config  # noqa: B018 - writes the file
        code, _, err = await command("run", "--once", "--config", str(private / "tablefeed.toml"), umask=0)
    assert code == 1, err
    made = [orders / "archive", *(orders / "archive").iterdir(), orders / "failed", private / "state" / "of"]
    made.append(private / "state")
    assert {path: oct(mode(path)) for path in made if mode(path) & ~0o750} == {}


async def test_a_copy_is_at_no_time_more_open_than_what_it_is_made_of(tmp_path: Path) -> None:
    """While a file is written to another file system nobody may read it who may not read the source; nor its report."""
    (tmp_path / "drop").mkdir()
    seen: dict[str, set[int]] = {}

    def look(fd: int, _chunk: bytes) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        seen.setdefault(name.rpartition("-")[2], set()).add(stat.S_IMODE(os.fstat(fd).st_mode))

    with umask(0), other_file_system(tmp_path) as elsewhere:
        feed = feed_at(tmp_path / "drop", failed=str(elsewhere / "failed"))
        refused = drop(feed, "orders.csv", os.urandom(5000), mode=0o640)
        error = FileRefused("orders.csv", "too large", "Split it")
        async with archiving(HookedDisk(write=look)) as archiver:
            moved = await archiver.set_aside(feed, 1, refused, error, UPLOADED_AT)
        assert moved.destination is not None
        final = Path(moved.destination)
        assert (mode(final), mode(final.with_name("orders.csv.error.json"))) == (0o640, 0o640)
    assert set(seen) == {"copy", "report"}
    assert all(mode & ~0o640 == 0 for modes in seen.values() for mode in modes), seen


async def delivered(ledger: Ledger, count: int) -> list[str]:
    """Let files go through the ledger in all ways that use up a grant; returns the grants' signatures."""
    signatures: list[str] = []
    versions = [version(f"{n:04}" * (1 + n % 7) + ".csv", inode=n, mtime_ns=n * 7919 % 1000) for n in range(count)]
    await ledger.enqueue(versions)

    async def deliver(entry: Entry) -> None:
        signatures.append(os.urandom(32).hex())
        url = f"https://store.example/{'k' * (entry.id * 131 % 700)}?X-Amz-Signature={signatures[-1]}"
        await ledger.granted(entry.id, Grant(url, 1_700_003_600_000, 3600.0))
        match entry.id % 5:
            case 0 if entry.attempts == 0:
                refused = FileRefused("a.csv", "for a reason", "Mend it")
                await ledger.failed(Failure(entry.id, refused, 0, keep_grant=False))
            case 1:
                await ledger.rejected(entry.id, FileRefused("a.csv", "for a reason", "Mend it"))
            case 2:
                await ledger.gone(entry.id)
            case _:
                await ledger.uploaded(entry.id, RECEIPT)
                await ledger.archived(Closing(entry.id, f"/archive/{entry.version.path}"))

    while entries := await ledger.claim([Want("orders", Order.OLDEST, 37)]):
        await asyncio.gather(*map(deliver, entries))
    assert len(signatures) > count
    return signatures


@pytest.fixture
def _sqlite_that_leaves_what_it_deletes() -> Iterator[None]:
    """SQLite as it is by itself: Debian builds it so that it overwrites what is deleted, others do not."""

    def forgetful(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA secure_delete=OFF")

    sa.event.listen(sa.Engine, "connect", forgetful)
    yield
    sa.event.remove(sa.Engine, "connect", forgetful)


def remains(place: Path, signatures: list[str]) -> list[str]:
    """Those that stand anywhere in the ledger's files."""
    left = b"".join(path.read_bytes() for path in place.glob("ledger.db*"))
    return [signature for signature in signatures if signature.encode() in left]


@pytest.mark.usefixtures("_sqlite_that_leaves_what_it_deletes")
async def test_no_grant_outlives_its_use_in_the_ledgers_files(tmp_path: Path) -> None:
    """Once the ledger is closed neither a page of the database nor its journal holds a signature that was cleared."""
    async with opened(tmp_path / "ledger.db") as ledger:
        signatures = await delivered(ledger, 150)
    assert remains(tmp_path, signatures) == []


@pytest.mark.usefixtures("_sqlite_that_leaves_what_it_deletes")
async def test_the_next_start_removes_the_grants_in_a_dead_daemons_journal(tmp_path: Path) -> None:
    """A killed daemon cannot tidy up; the one that comes after it does."""
    (tmp_path / "next").mkdir()
    async with opened(tmp_path / "ledger.db") as ledger:
        signatures = await delivered(ledger, 20)
        for name in NAMES[:2]:
            shutil.copy(tmp_path / name, tmp_path / "next" / name)
    assert remains(tmp_path / "next", signatures) == signatures
    async with opened(tmp_path / "next" / "ledger.db"):
        assert remains(tmp_path / "next", signatures) == []


SOURCES: list[tuple[str, Any]] = [
    ("grant", GRANT),
    ("entry", Entry(1, version(), State.UPLOADING, 0, grant=GRANT)),
    ("variable", KeyVariable("TABLEFEED_API_KEY", TYPED)),
    ("key", FileKey(KeyVariable("TABLEFEED_API_KEY", TYPED))),
    ("sandbox", SandboxSettings(Path("/data"), TYPED)),
    ("credentials", Credentials("AKIA", TYPED, "eu")),
    ("request", Received("PUT", SIGNED, (("x-api-key", TYPED),))),
]


@pytest.mark.parametrize("value", [value for _, value in SOURCES], ids=[name for name, _ in SOURCES])
def test_what_holds_a_secret_does_not_show_it(value: object) -> None:
    """Neither `repr` nor `str` of it, alone or in a container, as debuggers and debug logs write it."""
    search = Search({TYPED, SIGNATURE})
    assert search.leaks(f"{value!r} {value} {[value]} {vars(value) if isinstance(value, Settings) else ''}") == []


def test_settings_hold_no_key(tmp_path: Path) -> None:
    """However the key is given, the settings know where it comes from and not what it is."""
    site = config.Site(tmp_path)
    for environ in ({}, {"TABLEFEED_API_KEY": TYPED}):
        settings = site.load(environ, api={"tenant_id": "t", **({} if environ else {"api_key_file": str(site.key)})})
        assert Search({TYPED, config.KEY}).leaks(f"{settings!r} {settings} {settings.model_dump_json()}") == []


def refusal(site: config.Site, section: str, name: str, typed: str, *, by_variable: bool) -> str:
    """What is said when a setting is given this value; nothing when it is taken."""
    right = {"api": site.api, "feeds": config.feed()}.get(section, {})
    values: Any = {**right, name: typed}
    try:
        if by_variable and section == "feeds":
            site.load({"TABLEFEED_FEEDS": json.dumps([values])})
        elif by_variable:
            site.load({f"TABLEFEED_{section}__{name}".upper(): typed})
        else:
            sections: dict[str, Any] = {section: [values] if section == "feeds" else values}
            site.load(**sections)
    except ConfigInvalid as invalid:
        return f"{invalid} {invalid!r} {invalid.problems}"
    return ""


_KINDS: dict[str, type[Section]] = {**SECTIONS, "feeds": FeedSettings}
WRONG = [(section, name) for section, model in _KINDS.items() for name in (*model.model_fields, "api_key", "key")]


@pytest.mark.parametrize("by_variable", [False, True], ids=["file", "variable"])
@pytest.mark.parametrize(("section", "name"), WRONG)
def test_a_key_under_a_wrong_name_is_not_repeated(tmp_path: Path, section: str, name: str, by_variable: bool) -> None:
    """Whatever setting it is typed into, or pasted into together with a line break, the refusal shows nothing of it."""
    site = config.Site(tmp_path)
    for typed in (TYPED, f"{TYPED}\n", f"4{TYPED}"):
        said = refusal(site, section, name, typed, by_variable=by_variable)
        assert Search({TYPED}).leaks(said) == []


def test_pydantics_own_errors_repeat_no_value() -> None:
    """They are translated; should one ever get out, it shows nothing of its input."""
    for kind in _KINDS.values():
        with pytest.raises(ValidationError) as invalid:
            kind.model_validate({**dict.fromkeys(kind.model_fields, TYPED), "api_key": TYPED})
        assert Search({TYPED}).leaks(f"{invalid.value} {invalid.value!r}") == []


@pytest.mark.parametrize("content", [f"{TYPED}\n{TYPED}", f"key = {TYPED}", f"{TYPED}é", f"{TYPED}\0"])
def test_a_key_that_is_spoilt_is_not_shown(tmp_path: Path, content: str) -> None:
    """Two lines, an assignment, or a strange character: the refusal names the place only."""
    path = tmp_path / "api-key"
    path.write_text(content)
    for source in (KeyFile(path), KeyVariable("TABLEFEED_API_KEY", content)):
        with pytest.raises(Exception, match=r"api-key|TABLEFEED_API_KEY") as refused:
            source.read()
        assert Search({TYPED}).leaks(f"{refused.value} {refused.value!r}") == []
