"""The body of a PUT: what its headers may promise, and how it is read."""

import asyncio

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from tablefeed.sandbox.s3error import S3Error
from tablefeed.sandbox.store import MAX_OBJECT, credentials_for, expected_body, read_exactly


def stream(*pieces: bytes, ended: bool = True) -> StreamReader:
    """A body that came in these pieces."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(BaseProtocol(loop), 1024, loop=loop)
    for piece in pieces:
        reader.feed_data(piece)
    if ended:
        reader.feed_eof()
    return reader


async def test_reads_to_the_byte() -> None:
    """Pieces of any size become chunks of the size that is asked for."""
    content = stream(b"ab", b"cde", b"f")
    assert [await read_exactly(content, size, 1) for size in (1, 3, 0, 2)] == [b"a", b"bcd", b"", b"ef"]


async def test_early_end() -> None:
    """A body that ends too early is refused, and not waited for."""
    with pytest.raises(S3Error) as caught:
        await read_exactly(stream(b"abc"), 4, 60)
    assert caught.value.code == "IncompleteBody"


async def test_broken_connection() -> None:
    """A connection that breaks is a body that ended too early."""
    content = stream(b"abc", ended=False)
    content.set_exception(ConnectionResetError())
    with pytest.raises(S3Error) as caught:
        await read_exactly(content, 4, 60)
    assert caught.value.code == "IncompleteBody"


def test_largest_body() -> None:
    """5 GiB may come in one PUT, and not a byte more."""
    assert expected_body(MAX_OBJECT, None).size == 5 * 2**30
    with pytest.raises(S3Error) as caught:
        expected_body(MAX_OBJECT + 1, None)
    assert caught.value.code == "EntityTooLarge"


@pytest.mark.parametrize("text", ["", "nonsense", "1B2M2Y8AsgTpgAmY7PhCfg==!", "1B2M2Y8AsgTpgAmY7PhCf", "ä" * 24])
def test_content_md5_must_be_one(text: str) -> None:
    """`Content-MD5` is 16 bytes in Base64 and nothing around it."""
    assert expected_body(0, "1B2M2Y8AsgTpgAmY7PhCfg==").md5 == "d41d8cd98f00b204e9800998ecf8427e"
    with pytest.raises(S3Error) as caught:
        expected_body(0, text)
    assert caught.value.code == "InvalidDigest"


def test_credentials_follow_from_the_key() -> None:
    """The same API key gives the same credentials, another key others, and none contains the key."""
    assert credentials_for("key-1") == credentials_for("key-1")
    assert credentials_for("key-1") != credentials_for("key-2")
    assert "key-1" not in credentials_for("key-1").secret_key
