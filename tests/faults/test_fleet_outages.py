"""PostgreSQL goes away in every way it can, while files are sent: all are delivered once, and nothing is made up."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from support.daemon import KEY, Daemon, Site, clean_environ, command, contents, rename_in, running_daemon
from support.leaks import Search, command_lines
from support.patience import PATIENCE, until
from support.postgres import Postgres
from support.proxy import Loss, proxied
from tablefeed.sandbox.server import RunningSandbox, SandboxSettings, running

LEASE = 2.0
PASSWORD, OTHER = "r0le-s3cret-that-nobody-may-see", "0ther-s3cret-that-nobody-may-see"


@dataclass
class Stage:
    """Nodes that share a directory and a database, which belongs to a role that is no superuser."""

    root: Path
    sandbox: RunningSandbox
    server: Postgres
    database: str
    role: str
    sites: dict[str, Site] = field(default_factory=dict)

    @property
    def drop(self) -> Path:
        return self.root / "share"

    def site(self, node: str, port: int | None = None, **sections: dict[str, object]) -> Site:
        """A node's configuration; `port`: where its way to PostgreSQL begins."""
        (self.root / node).mkdir()
        site = self.sites[node] = Site(self.root / node, self.sandbox.base_url)
        url = self.server.url(self.database, user=self.role, password=PASSWORD, port=port)
        site.sections = {
            "ledger": {"url": url},
            "fleet": {"node": node, "lease": f"{LEASE:g}s"},
            "watch": {"rescan": "1s"},
            "http": {"listen": "127.0.0.1:0"},
            **sections,
        }
        site.feed("orders", directory=str(self.drop), shared=True, dataset_id="dataset-1")
        return site

    def put(self, number: int, size: int = 200) -> None:
        rename_in(self.drop, f"export-{number:05}.csv", b"%05d" % number * (size // 5))

    def ask(self, statement: str, database: str = "") -> str:
        return self.server.execute(database or self.database, statement)

    def objects(self) -> Counter[bytes]:
        """What the store has, by content."""
        stored = self.root / "processmind" / "objects"
        return Counter(path.read_bytes() for path in stored.rglob("*") if path.is_file())

    async def until_archived(self, count: int) -> None:
        many = "SELECT count(*) FROM files WHERE state = 'archived'"
        await until(lambda: int(self.ask(many)) >= count, "so many are not archived", pause=0.05)

    def assert_clean(self, count: int) -> None:
        """Each file has one row, one object, and lies once in the archive."""
        assert self.ask("SELECT state, count(*) FROM files GROUP BY state") == f"archived|{count}"
        archived = contents(self.drop / "archive")
        assert sorted(archived) == [f"export-{number:05}.csv" for number in range(count)]
        assert self.objects() == Counter(archived.values())
        assert [path.name for path in self.drop.iterdir() if path.is_file()] == []

    def end_sessions(self) -> None:
        self.ask(
            f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{self.role}'"  # noqa: S608
        )


@pytest.fixture
async def stage(tmp_path: Path, postgres: Postgres) -> AsyncIterator[Stage]:
    async with staged(tmp_path, postgres) as made:
        yield made


@pytest.fixture
async def own_stage(tmp_path: Path, own_postgres: Postgres) -> AsyncIterator[Stage]:
    """With a PostgreSQL that may be ended."""
    async with staged(tmp_path, own_postgres) as made:
        yield made


@asynccontextmanager
async def staged(root: Path, server: Postgres) -> AsyncIterator[Stage]:
    (root / "share").mkdir()
    database = server.empty_database().rpartition("/")[2]
    role = f"role_{database}"
    server.execute("postgres", f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    server.execute("postgres", f"ALTER DATABASE {database} OWNER TO {role}")
    async with running(SandboxSettings(root / "processmind", KEY, strict=True)) as sandbox:
        yield Stage(root, sandbox, server, database, role)


@asynccontextmanager
async def node(site: Site) -> AsyncIterator[Daemon]:
    async with running_daemon(site.config) as daemon:
        await daemon.until_event("ready")
        yield daemon


async def asked(daemon: Daemon, path: str) -> tuple[int, str]:
    """What it answers over HTTP."""
    address = daemon.named("started")[0]["http"]
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session,
        session.get(f"http://{address}{path}") as answer,
    ):
        return answer.status, await answer.text()


Trouble = tuple[Callable[[Stage], None], Callable[[Stage], None]]
"""What is done to PostgreSQL, and how it is mended."""


def _alter(stage: Stage, what: str) -> None:
    stage.ask(f"ALTER ROLE {stage.role} {what}", "postgres")
    stage.end_sessions()


def _fill(stage: Stage) -> None:
    """As a full disk does it: what is written is refused, what is read is not."""
    body = "BEGIN RAISE EXCEPTION ''could not extend file: No space left on device'' USING ERRCODE = ''53100''; END"
    stage.ask(f"CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
    for table in ("files", "nodes"):
        stage.ask(f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION full_disk()")


def _empty(stage: Stage) -> None:
    stage.ask("DROP FUNCTION full_disk CASCADE")


ENDS: dict[str, Trouble] = {
    "stopped": (lambda stage: stage.server.stop(), lambda stage: stage.server.start()),
    "power cut": (lambda stage: stage.server.stop(signal.SIGQUIT), lambda stage: stage.server.start()),
}
TROUBLES: dict[str, Trouble] = {
    "disk full": (_fill, _empty),
    "overcrowded": (
        lambda stage: _alter(stage, "CONNECTION LIMIT 0"),
        lambda stage: _alter(stage, "CONNECTION LIMIT -1"),
    ),
    "password changed": (
        lambda stage: _alter(stage, f"PASSWORD '{OTHER}'"),
        lambda stage: _alter(stage, f"PASSWORD '{PASSWORD}'"),
    ),
}


@pytest.mark.parametrize("end", ENDS)
async def test_an_upload_in_flight_is_recorded_when_postgresql_runs_again(own_stage: Stage, end: str) -> None:
    """It is finished meanwhile; nothing else is begun; the daemon says what is wrong; no file is sent twice."""
    await outlasts(own_stage, ENDS[end])


@pytest.mark.parametrize("trouble", TROUBLES)
async def test_an_upload_in_flight_is_recorded_when_postgresql_takes_it_again(stage: Stage, trouble: str) -> None:
    """The same holds while it runs and refuses."""
    await outlasts(stage, TROUBLES[trouble])


async def outlasts(stage: Stage, trouble: Trouble) -> None:
    """Have the trouble in the middle of an upload."""
    break_it, mend_it = trouble
    async with node(stage.site("north", upload={"bandwidth": "1MiB/s", "concurrency": 1})) as daemon:
        stage.put(0, 2 * 2**20)
        await daemon.until_event("upload_started")
        break_it(stage)
        try:
            stage.put(1)
            await daemon.until_event("ledger_unwritable")
            await until(lambda: sum(stage.objects().values()) == 1, "the upload did not end")
            status, text = await asked(daemon, "/readyz")
            assert (status, "PostgreSQL" in text) == (503, True), text
            assert "cannot be" in (await asked(daemon, "/api/status"))[1]
            assert (await asked(daemon, "/healthz"))[0] == 200
            assert len(daemon.named("upload_started")) == 1
            assert not (stage.drop / "archive").exists()
        finally:
            mend_it(stage)
        await daemon.until_event("ledger_writable_again")
        await stage.until_archived(2)
        assert len(daemon.named("upload_started")) == 2
        assert daemon.named("file_delayed") == daemon.named("lease_lost") == daemon.named("file_left_to_others") == []
        async with asyncio.timeout(PATIENCE):
            while (await asked(daemon, "/readyz"))[0] != 200:
                await asyncio.sleep(0.05)
        assert await daemon.end() == 0
    stage.assert_clean(2)


async def test_a_node_that_is_cut_off_moves_nothing_and_sends_nothing_new(stage: Stage) -> None:
    """For longer than its lease nothing comes and nothing breaks; another goes on, and this one follows later."""
    count = 24
    async with proxied(stage.server.port) as way:
        slow = {"bandwidth": "200KiB/s", "concurrency": 4}
        async with (
            node(stage.site("north", way.port, upload=slow)) as north,
            node(stage.site("south", upload=slow)) as south,
        ):
            for number in range(count):
                stage.put(number, 50_000)
            await north.until_event("file_archived", 2)
            way.stop()
            await south.until(lambda: south.named("nodes_over"))
            moved, sent = len(north.named("file_archived")), len(north.named("upload_started"))
            await south.until_event("file_archived", count // 2)
            assert (len(north.named("file_archived")), len(north.named("upload_started"))) == (moved, sent)
            way.go_on()
            await north.until_event("lease_lost")
            await stage.until_archived(count)
            assert (await north.end(), await south.end()) == (0, 0)
        stage.assert_clean(count)


def losing(every: int) -> Callable[[bytes], Loss | None]:
    """Lose the answer to each so many-th commit."""
    commits = 0

    def lose(data: bytes) -> Loss | None:
        nonlocal commits
        if b"COMMIT" not in data:
            return None
        commits += 1
        return Loss.ANSWER if commits % every == 0 else None

    return lose


async def test_commits_without_an_answer_lose_and_double_nothing(stage: Stage) -> None:
    """The connection ends again and again when all was done: no row is another's, and no file goes twice."""
    count = 60
    async with proxied(stage.server.port) as way, node(stage.site("north", way.port)) as daemon:
        way.lose = losing(11)
        for number in range(count):
            stage.put(number)
        await stage.until_archived(count)
        way.lose = lambda _: None
        assert await daemon.end() == 0
        assert len(daemon.named("ledger_writable_again")) >= 2
        assert daemon.named("file_left_to_others") == daemon.named("lease_lost") == []
        assert len(daemon.named("upload_started")) == len(daemon.named("file_archived")) == count
        assert "Traceback" not in daemon.log
    stage.assert_clean(count)


async def test_a_pass_outlives_its_lease(stage: Stage) -> None:
    """`run --once` gives signs of life as well, so that nobody takes over what it works on."""
    site = stage.site("north", upload={"bandwidth": "300KiB/s", "concurrency": 1})
    stage.put(0, 2**20)
    async with running_daemon(site.config, "--once") as daemon:
        assert await daemon.death() == 0
        assert daemon.named("lease_lost") == []
    assert stage.ask("SELECT (seen_at - started_at > 2500), lease_until FROM nodes WHERE name = 'north'") == "t|0"
    stage.assert_clean(1)


COMMANDS = ("check", "config show", "status", "status --json", "history", "retry --all", "run --once")


async def test_the_password_is_seen_nowhere(own_stage: Stage) -> None:
    """PostgreSQL is stopped, refuses the password, has no room, and comes back; the daemon tells all it can, and is
    killed by a signal that makes it tell where it is. No output, log, page or argument has it."""
    stage = own_stage
    site = stage.site("north", log={"level": "debug"})
    talkative = {"PYTHONASYNCIODEBUG": "1", "PYTHONFAULTHANDLER": "1", "PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1"}
    search = Search({PASSWORD, OTHER, KEY})
    texts: dict[str, str] = {}
    async with running_daemon(site.config, environ=talkative) as daemon:
        await daemon.until_event("ready")
        code, _, texts["second"] = await command("run", "--config", str(site.config))
        assert (code, texts["second"].count("\n"), "a daemon called north uses the ledger" in texts["second"]) == (
            73,
            1,
            True,
        )
        for times, (break_it, mend_it) in enumerate(
            (ENDS["stopped"], TROUBLES["password changed"], TROUBLES["overcrowded"]), 1
        ):
            break_it(stage)
            await daemon.until_event("ledger_unwritable", times)
            texts |= {f"{times} {path}": (await asked(daemon, path))[1] for path in ("/api/status", "/readyz", "/")}
            if times == 2:
                told = await asyncio.gather(
                    *(command(*name.split(), "--config", str(site.config)) for name in COMMANDS)
                )
                texts |= {name: out + err for name, (_, out, err) in zip(COMMANDS, told, strict=True)}
                codes = {name: code for name, (code, _, _) in zip(COMMANDS, told, strict=True)}
                assert {codes[name] for name in ("check", "history", "retry --all", "run --once")} == {77}
                assert all(texts.values())
            mend_it(stage)
            await daemon.until_event("ledger_writable_again", times)
        assert search.leaks(command_lines()) == []
        assert await daemon.end(signal.SIGABRT) == -signal.SIGABRT
    texts["daemon"] = daemon.log
    assert "Fatal Python error: Aborted" in daemon.log
    for name in ("check", "status", "history", "retry --all", "run --once"):
        assert "password authentication failed" in texts[name], texts[name]
        assert "Traceback" not in texts[name]
    assert "[hidden]" in texts["config show"]
    assert {name: leaks for name, text in texts.items() if (leaks := search.leaks(text))} == {}


CRASH = """
import sys
from tablefeed.cli.app import main
from tablefeed.ledger import postgres

def lock_node(connection, node):
    url = connection.engine.url.render_as_string(hide_password=False)
    password = connection.engine.url.password
    raise RuntimeError(f"{url} {password}") from ValueError({"password": password}, password)

postgres.lock_node = lock_node
sys.argv = ["tablefeed", "run", "--config", sys.argv[1]]
main()
"""


async def test_a_crash_shows_no_password(stage: Stage) -> None:
    """A traceback of what nobody foresaw, with the URL and the password in its exceptions, is told without them."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CRASH, str(stage.site("north").config)),
        env=clean_environ(),
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert b"RuntimeError: " in err
    assert b"ValueError: " in err
    assert Search({PASSWORD}).leaks(err) == []
