"""Whether a feed's directory is really there, or only the empty place where its file system is to be mounted."""

from pathlib import Path

from tablefeed.errors import DiskTrouble
from tablefeed.model import FileVersion, printable


def assert_present(directory: Path, missing: FileVersion) -> None:
    """Make sure that what is missing from a feed's directory has been removed, and is not merely out of reach.

    Blocks. Raises DiskTrouble.
    """
    try:
        now = FileVersion.of("", "", directory.stat())
        other = now.device != missing.device or (missing.root is not None and now.inode != missing.root)
        empty = next(directory.iterdir(), None) is None
    except OSError as error:
        raise DiskTrouble(
            printable(directory), f"the feed's directory cannot be used ({error.strerror}); is its file system mounted?"
        ) from None
    if other and empty:
        raise DiskTrouble(
            printable(directory), "it is empty, and not the directory that the file was in; is it mounted?"
        )
