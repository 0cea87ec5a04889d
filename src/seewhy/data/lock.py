"""One writer of a folder: a lock that the system lets go of when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys
import time
import warnings
from pathlib import Path

from ..errors import InputError, SeewhyWarning

LOCK = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_PLACE = 1 << 30  # of the locked byte where locks keep others from reading what is locked


class FolderLock:
    """The right to write into a folder, held by one process at a time.

    Args:
        folder: there already; `.lock` in it stays, and is empty while nobody holds it.

    Raises:
        InputError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            _lock(self._file)
        except OSError as error:
            held = error.errno in _HELD
            holder = os.pread(self._file, 200, 0) if held and hasattr(os, "pread") else b""
            if held:
                os.close(self._file)
                raise InputError(
                    f"out={str(folder)!r} is being written by {holder.decode(errors='replace') or 'another process'}; "
                    "wait until that has ended, or give another folder"
                ) from error
            warnings.warn(
                f"'{folder}' cannot be locked ({error.strerror}); see that no other process writes into it",
                SeewhyWarning,
                stacklevel=4,
            )
        self._say(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")

    def release(self) -> None:
        """Lets the folder go."""
        self._say("")
        os.close(self._file)

    def _say(self, holder: str) -> None:
        """Notes who holds it, for others; a full disk does not matter here."""
        try:
            os.ftruncate(self._file, 0)
            os.lseek(self._file, 0, os.SEEK_SET)
            os.write(self._file, holder.encode())
        except OSError:
            return


def check_not_held(folder: Path) -> None:
    """Refuses a folder that another process writes into, before anything slow is done.

    Raises:
        InputError: it is being written.
    """
    if (folder / LOCK).exists():
        FolderLock(folder).release()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, _PLACE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
