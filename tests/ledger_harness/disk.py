"""A disk that can be full: a small tmpfs of its own for Postgres, which only root can mount."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


class Disk:
    """A folder; `can_be_full` once it is mounted, if it is a file system of its own."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        self.can_be_full = False
        self._size_mb = size_mb
        self._ballast = folder / "ballast"
        folder.mkdir()

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self._size_mb}m", "tmpfs", str(self.folder)]
        try:
            self.can_be_full = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            self.can_be_full = False
        try:
            yield
        finally:
            if self.can_be_full:
                subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def fill(self) -> None:
        """Leave not one byte."""
        with self._ballast.open("ab") as ballast:
            for size in (1 << 22, 1 << 16, 1 << 12):
                with contextlib.suppress(_Full):
                    while True:
                        _grow(ballast.fileno(), size)

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


class _Full(Exception):
    pass


def _grow(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _Full from None
        raise
