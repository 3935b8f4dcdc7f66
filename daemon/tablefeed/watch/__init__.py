"""Finding files: events that hint, scans that know, and looking at what lies there.

    watcher.py   events of the kernel; when they fail, scans alone serve
    scan.py      what lies in a directory, in batches; which files a feed takes
    observe.py   one look at one file, and the probe for a writer
    judge.py     what follows for a batch of files, in a thread
    pending.py   the files that wait, bounded

`intake.py` puts them together.
"""
