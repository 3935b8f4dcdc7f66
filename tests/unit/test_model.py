import os

from hypothesis import example, given
from hypothesis import strategies as st

from tablefeed.model import FileVersion

LARGE = 2**64 - 1  # what some file systems number their inodes with
FIELDS = st.tuples(st.integers(0, LARGE), st.integers(0, 2**40), st.integers(-(2**63), LARGE))


def _found(inode: int, size: int, mtime_ns: int) -> os.stat_result:
    """What a file system says of such a file."""
    sequence = (0o100644, inode, 5, 1, 0, 0, size, 0, 0, 0)
    return os.stat_result(sequence, {"st_mtime_ns": mtime_ns, "st_ctime_ns": 0})


@given(FIELDS, FIELDS)
@example((LARGE, 1, 2), (LARGE, 1, 2))
@example((1, 1, LARGE), (1, 1, LARGE))
@example((1, 1, 1), (2, 1, 1))
@example((1, 1, 1), (1, 2, 1))
@example((1, 1, 1), (1, 1, 2))
def test_a_version_describes_what_is_its_equal(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    """It describes exactly the files that would give an equal version, also where numbers exceed 63 bits."""
    version = FileVersion.of("orders", "a.csv", _found(*one))
    assert version.describes(_found(*one))
    assert version.describes(_found(*other)) == (version == FileVersion.of("orders", "a.csv", _found(*other)))
