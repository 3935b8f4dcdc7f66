"""Whether a feed's directory is really there, or only the empty place where its file system is to be mounted."""

from pathlib import Path

from tablefeed.errors import DiskTrouble
from tablefeed.model import FileVersion, printable


def assert_present(directory: Path, device: int) -> None:
    """Make sure that what is missing from a directory has been removed, and is not merely out of reach.

    `device`: where the file was that is missing (`FileVersion.device`). Blocks. Raises DiskTrouble.
    """
    try:
        other = FileVersion.of("", "", directory.stat()).device != device
        empty = next(directory.iterdir(), None) is None
    except OSError as error:
        raise DiskTrouble(
            printable(directory), f"the feed's directory cannot be used ({error.strerror}); is its file system mounted?"
        ) from None
    if other and empty:
        raise DiskTrouble(
            printable(directory), "it is empty, and on another file system than the file was; is it mounted?"
        )
