"""A real PostgreSQL on loopback, made and ended by the tests: one cluster for all of them, a database for each."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from support.patience import PATIENCE
from support.ports import free_port
from tablefeed.ledger import engine

REMEDY = "PostgreSQL is missing: apt-get install postgresql"
PASSWORD = "p4ssword-that-nobody-may-see"
USER = "tablefeed"
_PROGRAMS = ("postgres", "initdb", "createdb", "psql", "pg_isready")
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "log_min_messages": "warning",
    "autovacuum_naptime": "10s",
}


def programs() -> Path | None:
    """Where the server's programs are; None where there are none."""
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    # Debian keeps them where no PATH looks.
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if all((place / name).exists() for name in _PROGRAMS)), None)


def _as_user() -> dict[str, object]:
    """The server does not run as root: it is given to the user that its package has made, or else to nobody."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    return {}


@dataclass
class Postgres:
    """A cluster. It may be stopped and started again."""

    root: Path
    port: int
    programs: Path
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))
    _process: subprocess.Popen[bytes] | None = None
    _template: str = ""

    @property
    def data(self) -> Path:
        """Its files."""
        return self.root / "data"

    @property
    def pid(self) -> int:
        """Of the process that all others of the server are children of."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str, *, password: str = PASSWORD, user: str = USER, port: int | None = None) -> str:
        """As `[ledger] url` names a database of it."""
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    def make(self) -> None:
        """Make the cluster, with one user that has a password."""
        secret = self.root / "password"
        secret.write_text(PASSWORD)
        for path in (self.root, secret):
            user = _as_user().get("user", os.geteuid())
            assert isinstance(user, int)
            os.chown(path, user, -1)
        self._run("initdb", "--username", USER, "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding=UTF8")
        settings = "".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(settings + f"port = {self.port}\nunix_socket_directories = '{self.root}'\n")

    def _run(self, program: str, *arguments: str) -> None:
        command = (self.programs / program, "--pgdata", self.data, *arguments)
        done = subprocess.run(command, capture_output=True, check=False, cwd=self.root, **_as_user())  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        with (self.root / "log").open("ab") as log:
            self._process = subprocess.Popen(  # type: ignore[call-overload]
                (self.programs / "postgres", "-D", self.data), stdout=log, stderr=log, cwd=self.root, **_as_user()
            )
        end = time.monotonic() + PATIENCE
        while subprocess.run(self._is_ready(), capture_output=True, check=False).returncode:
            assert self._process is not None
            assert self._process.poll() is None, (self.root / "log").read_text()[-2000:]
            assert time.monotonic() < end
            time.sleep(0.05)

    def _is_ready(self) -> tuple[str, ...]:
        return (str(self.programs / "pg_isready"), "--host=127.0.0.1", f"--port={self.port}", "--quiet")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT at once but cleanly, SIGQUIT as after a power cut."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def empty_database(self) -> str:
        """The URL of a new database with nothing in it."""
        return self._made("template0")

    def database(self) -> str:
        """The URL of a new database with a ledger in which nothing is; to migrate each anew would take a second."""
        if not self._template:
            url = self.empty_database()
            connection = engine.connect(url)
            connection.close()
            connection.engine.dispose()
            self._template = url.rpartition("/")[2]
        return self._made(self._template)

    def _made(self, template: str) -> str:
        name = f"ledger_{os.getpid()}_{next(self._numbers)}"
        self.execute("postgres", f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def create(self, database: str, *options: str) -> None:
        """Make a database as people do, with options of createdb."""
        self._ask("createdb", *options, database)

    def execute(self, database: str, statement: str) -> str:
        """What psql prints for a statement, values alone."""
        how = ("--no-psqlrc", "--tuples-only", "--no-align", "--quiet", f"--command={statement}")
        return self._ask("psql", *how, database)

    def _ask(self, program: str, *arguments: str) -> str:
        where = ("--host=127.0.0.1", f"--port={self.port}", f"--username={USER}")
        command = (str(self.programs / program), *where, *arguments)
        environ = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run(command, capture_output=True, check=False, env=environ, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextmanager
def serving_postgres(root: Path) -> Iterator[Postgres]:
    """A cluster in a new directory, which its user may enter."""
    found = programs()
    assert found is not None, REMEDY
    root.mkdir(mode=0o755)
    server = Postgres(root, free_port(), found)
    server.make()
    try:
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)  # nobody reads again what it would write at a clean end
