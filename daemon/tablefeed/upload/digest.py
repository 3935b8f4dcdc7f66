"""The MD5 of a file that may not have to be sent. Blocks."""

import os
from collections.abc import Callable
from pathlib import Path

from tablefeed.errors import DiskTrouble
from tablefeed.lease import Writer
from tablefeed.model import FileVersion
from tablefeed.upload.body import CHUNK
from tablefeed.upload.checks import Digest
from tablefeed.upload.source import Source


def digest(directory: Path, version: FileVersion, writer_of: Callable[[int], Writer]) -> str:
    """The MD5 of a version, in hexadecimal.

    Raises as `Source` does: SourceChanged, DiskTrouble and FeedBlocked.
    """
    source = Source(directory, version, 0, writer_of, (Digest.MD5,))
    try:
        while source.file.read(CHUNK):
            pass
        source.check_unchanged()
        return source.file.hashes.value(Digest.MD5) or ""
    except OSError as error:
        raise DiskTrouble(source.path, f"it cannot be read: {os.strerror(error.errno or 0)}") from error
    finally:
        source.close()
