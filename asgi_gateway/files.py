"""The only place that reads files whole, and refuses what has no end or may never begin."""

import os
import stat
from pathlib import Path


def read_whole(path: Path | str, most: int = -1) -> bytes:
    """The bytes of a regular file, `most` of them at most. OSError for anything else.

    A FIFO that nobody writes into would hold up the start, or a reload, for ever; a device has no end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(0, "Is a directory")
        if not stat.S_ISREG(mode):
            raise OSError(0, "it is a pipe or a device, not a file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    finally:
        os.close(descriptor)
