"""How large the pieces are in which files are read."""

from hypothesis import given
from hypothesis import strategies as st

from tablefeed.upload.body import CHUNK, chunk_size

SMALLEST = 2**16
ALL = 12 * 2**20


@given(uploads=st.integers(0, 10_000))
def test_chunks_shrink_so_that_many_uploads_do_not_fill_memory(uploads: int) -> None:
    """Whole for up to sixteen; then all of them together stay within a bound, as long as one is no smaller than 64 KiB,
    and each is a power of two."""
    size = chunk_size(uploads)
    assert SMALLEST <= size <= CHUNK
    assert size & (size - 1) == 0
    if uploads <= 16:
        assert size == CHUNK
    else:
        assert size == SMALLEST or size * uploads <= ALL
