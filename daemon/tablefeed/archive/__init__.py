"""Where files end: the archive or `failed/`, by moves that can be repeated after a crash at any step.

archiver.py      what is to be done with a file, in batches that share their fsyncs
relocate.py      one move, step by step
marker.py        the marker file's part in it
shelf.py         the numbered names that moved files get
moves.py         the file-system steps that a move is made of
removal.py       the end of archived files that have been kept for long enough
restore.py       the way back of refused files
directories.py   whether a feed's directories can be used, told before anything is moved
"""

from tablefeed.archive.archiver import Archiver, Moved

__all__ = ["Archiver", "Moved"]
