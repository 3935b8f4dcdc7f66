"""One connection to PostgreSQL on which a node asks and hears: neither keeps the other waiting, and it comes back."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from support.ledgers import joined
from support.patience import PATIENCE, until
from support.postgres import Postgres
from support.proxy import proxied
from tablefeed.errors import LedgerUnusable
from tablefeed.ledger.listener import Listener
from tablefeed.ledger.messages import Look, Message, Queued
from tablefeed.ledger.reader import Reader
from tablefeed.ledger.records import Record, Records, Search
from tablefeed.ledger.shared import SharedConnection

MINE = "FROM pg_stat_activity WHERE application_name = 'tablefeed north'"


@dataclass
class Node:
    """What a node has heard, and how long it has waited between two tries."""

    server: Postgres
    url: str
    connection: SharedConnection
    heard: list[Message] = field(default_factory=list)
    deaf: int = 0
    """Times that something may have been missed."""
    waits: list[float] = field(default_factory=list)

    @property
    def database(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def reader(self) -> Reader:
        return Reader(self.url, self.connection)

    def ask(self, statement: str) -> str:
        """What the database says to SQL, on another connection."""
        return self.server.execute(self.database, statement)

    def tell(self, feed: str) -> None:
        """As another node does."""
        self.ask(f"""NOTIFY tablefeed, '["{feed}"]'""")

    def missed(self) -> None:
        self.deaf += 1

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        await asyncio.sleep(0.01)


@asynccontextmanager
async def listening(server: Postgres, url: str) -> AsyncIterator[Node]:
    node = Node(server, url, SharedConnection(url, "north"))
    listener = Listener(node.connection, heard=node.heard.append, deaf=node.missed, sleep=node.sleep)
    task = asyncio.create_task(listener.run())
    try:
        await until(lambda: node.deaf)
        yield node
    finally:
        task.cancel()
        await asyncio.wait([task])
        await node.reader.close()


@pytest.fixture
async def node(postgres: Postgres) -> AsyncIterator[Node]:
    async with listening(postgres, postgres.database()) as node:
        yield node


async def test_what_is_heard_and_asked_goes_by_one_connection(node: Node) -> None:
    """Whatever the order, and nothing is said to have been missed."""
    node.tell("before")
    await until(lambda: node.heard == [Queued("before")])
    assert await node.reader.find(Search(), 10) == []
    node.tell("after")
    await until(lambda: node.heard == [Queued("before"), Queued("after")])
    assert await node.reader.find(Search(), 10) == []
    assert (node.ask(f"SELECT count(*) {MINE}"), node.deaf, node.waits) == ("1", 1, [])


async def test_what_is_told_during_a_question_is_heard_at_its_end(node: Node) -> None:
    """Though nothing more comes on the socket then: it came with the answer, or before the question was asked."""

    def question(records: Records) -> int:
        node.tell("orders")
        return records.count(Search())

    for _ in range(20):
        assert await node.connection.ask(question) == 0
    await until(lambda: len(node.heard) == 20)
    assert {*node.heard} == {Queued("orders")}
    assert node.deaf == 1


async def test_a_node_that_is_asked_all_the_time_hears(node: Node) -> None:
    """Questions of several that follow one another without a pause keep no message back."""
    ended = asyncio.Event()

    async def ask() -> int:
        asked = 0
        while not ended.is_set():
            await node.reader.find(Search(), 10)
            asked += 1
        return asked

    asking = [asyncio.create_task(ask()) for _ in range(3)]
    async with joined(node.url, "south") as south:
        for number in range(10):
            await south.tell(Look("orders", (f"{number}.csv",)))
            await until(lambda: len(node.heard) == number + 1)  # noqa: B023 - waited for here
    ended.set()
    assert all(await asyncio.gather(*asking))
    assert node.deaf == 1


async def test_hearing_asks_nothing(node: Node) -> None:
    """PostgreSQL gets no statement for what it tells: a node that is not asked costs it nothing."""
    last = node.ask(f"SELECT pid, state, query, state_change {MINE}")
    node.tell("orders")
    await until(lambda: node.heard)
    assert node.ask(f"SELECT pid, state, query, state_change {MINE}") == last
    assert "|idle|COMMIT|" in last, "nothing is told to who is in a transaction"


async def test_a_connection_that_was_ended_is_made_anew(node: Node) -> None:
    """Without anybody asking; then it hears again and says that it may have missed something, and questions work."""
    first = node.ask(f"SELECT pg_terminate_backend(pid), pid {MINE}")
    await until(lambda: node.deaf == 2)
    assert node.ask(f"SELECT true, pid {MINE}") not in ("", first)
    node.tell("orders")
    await until(lambda: node.heard == [Queued("orders")])
    assert await node.reader.find(Search(), 10) == []
    assert node.ask(f"SELECT count(*) {MINE}") == "1"


async def test_a_connection_that_ends_under_a_question_is_made_anew(node: Node) -> None:
    """The question has an error in words, the next one an answer, and what is told is heard."""

    def question(records: Records) -> int:
        node.ask(f"SELECT pg_terminate_backend(pid) {MINE}")
        return records.count(Search())

    with pytest.raises(LedgerUnusable, match="PostgreSQL does not answer as it should"):
        await node.connection.ask(question)
    assert await node.reader.find(Search(), 10) == []
    await until(lambda: node.deaf == 2)
    node.tell("orders")
    await until(lambda: node.heard == [Queued("orders")])


async def test_tries_grow_apart_while_the_database_is_away(node: Node) -> None:
    """From one second to thirty, and from one again after it was there; who asks meanwhile is told why."""
    node.server.execute("postgres", f"ALTER DATABASE {node.database} WITH ALLOW_CONNECTIONS false")
    mine = f"{MINE} AND datname = '{node.database}'"
    node.server.execute("postgres", f"SELECT pg_terminate_backend(pid) {mine}")
    await until(lambda: len(node.waits) >= 7)
    assert node.waits[:7] == [1, 2, 4, 8, 16, 30, 30]
    with pytest.raises(LedgerUnusable, match="not currently accepting connections"):
        await node.reader.find(Search(), 10)
    node.server.execute("postgres", f"ALTER DATABASE {node.database} WITH ALLOW_CONNECTIONS true")
    await until(lambda: node.deaf == 2)
    node.waits.clear()
    node.ask(f"SELECT pg_terminate_backend(pid) {MINE}")
    await until(lambda: node.deaf == 3)
    assert node.waits == [1]


async def test_more_than_is_kept_while_nobody_listens_is_told_as_missed(postgres: Postgres) -> None:
    """A thousand messages and no more; who listens then looks at everything."""
    url = postgres.database()
    connection = SharedConnection(url, "north")
    assert await connection.ask(lambda records: records.count(Search())) == 0
    tell = "SELECT pg_notify('tablefeed', n::text) FROM generate_series(1, 1500) AS n"
    postgres.execute(url.rpartition("/")[2], tell)
    assert await connection.ask(lambda records: records.count(Search())) == 0
    told: list[str | None] = []
    listening = asyncio.create_task(connection.listen(told.append))
    async with asyncio.timeout(PATIENCE):
        while told[-1:] != ["1500"]:
            await asyncio.sleep(0.01)
    assert (len(told), told[0]) == (1_001, None)
    listening.cancel()
    await connection.close()


def readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("ledger-reader")}


async def asked_in_vain(reader: Reader, others: set[threading.Thread]) -> asyncio.Task[list[Record]]:
    """A question that gets no answer, while the reader is closed."""
    asking = asyncio.create_task(reader.find(Search(), 10))
    await asyncio.sleep(0)  # it is asked
    mine = readers() - others
    assert mine
    async with asyncio.timeout(8):
        await reader.close()
    assert all(thread.daemon for thread in mine), "none keeps the process from ending"
    return asking


async def test_a_server_that_answers_no_question_does_not_hold_up_the_end(postgres: Postgres) -> None:
    """The connection is cut off, and the question has its error."""
    others = readers()
    async with proxied(postgres.port) as way:
        url = postgres.database().replace(f":{postgres.port}/", f":{way.port}/")
        reader = Reader(url, SharedConnection(url, "north"))
        assert await reader.find(Search(), 10) == []
        way.stop()
        asking = await asked_in_vain(reader, others)
        with pytest.raises(LedgerUnusable):
            await asyncio.wait_for(asking, PATIENCE)


async def test_a_server_that_lets_nobody_in_does_not_hold_up_the_end() -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://me:secret@127.0.0.1:{silent.getsockname()[1]}/ledger"
        asking = await asked_in_vain(Reader(url, SharedConnection(url, "north")), readers())
    with pytest.raises(LedgerUnusable):
        await asyncio.wait_for(asking, PATIENCE)
