"""Where files end: the archive or `failed/`, by moves that can be repeated after a crash at any step.

archiver.py      what is to be done with a file, in batches that share their fsyncs
job.py           one file's part: what to do, and what has become of it
relocate.py      one move, step by step
way.py           the directories that it leads from and to, looked at once a batch
marker.py        the marker file's part in it
report.py        the report beside a refused file
shelf.py         the numbered names that moved files get
moves.py         the file-system steps that a move is made of
removal.py       the end of archived files that have been kept for long enough
restore.py       the way back of refused files
directories.py   whether a feed's directories can be used, told before anything is moved
"""

from tablefeed.archive.archiver import Archiver
from tablefeed.archive.job import Moved

__all__ = ["Archiver", "Moved"]
