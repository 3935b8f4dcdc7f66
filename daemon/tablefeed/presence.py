"""Whether a feed's directory is really there, or only the empty place where its file system is to be mounted."""

from pathlib import Path

from tablefeed import mounts
from tablefeed.errors import DiskTrouble
from tablefeed.model import FileVersion, printable


def assert_present(directory: Path, missing: FileVersion) -> None:
    """Make sure that what is missing from a feed's directory has been removed, and is not merely out of reach.

    Blocks. Raises DiskTrouble.
    """
    try:
        now = FileVersion.of("", "", directory.stat())
        empty = next(directory.iterdir(), None) is None
        other = empty and _is_another(directory, now, missing)
    except OSError as error:
        raise DiskTrouble(
            printable(directory), f"the feed's directory cannot be used ({error.strerror}); is its file system mounted?"
        ) from None
    if other:
        raise DiskTrouble(
            printable(directory), "it is empty, and not the directory that the file was in; is it mounted?"
        )


def _is_another(directory: Path, now: FileVersion, missing: FileVersion) -> bool:
    """Whether a feed's directory, which is so `now`, is not the one that a file was seen in."""
    if missing.root is None or now.inode != missing.root:
        return missing.root is not None or now.device != missing.device
    if now.device == missing.device:
        return False
    # A network share has another device on each node, and with each mount.
    mount = mounts.holding(directory)
    return mount is None or not mount.is_network
