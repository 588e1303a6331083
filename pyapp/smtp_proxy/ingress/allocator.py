"""How the C library keeps memory, for a service whose memory has a budget.

Left alone, glibc counts it as a habit when blocks of some megabytes are freed: it then takes such blocks out of a heap
of each thread's instead of asking the kernel for them, and what is free in one heap is of no use to another thread, nor
to anybody beside the process. Messages of 25 MiB leave up to twice the budget behind. So large blocks are always the
kernel's: they grow without being copied (mremap(2)) and are gone when they are freed.

Source: mallopt(3), M_MMAP_THRESHOLD: setting it switches the habit off.
"""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# Above what is allocated for every batch: asyncio reads into 256 KiB, the core's pieces have a little more (copy.rs).
# Below it, doubling is how a text grows (core_rs/proto/src/data.rs).
_LARGE_BYTES: Final = 512 * 1024
# What may stay free at a heap's end; the habit that is switched off would have raised this too.
_KEPT_BYTES: Final = 16 * 1024 * 1024


def give_back_large_blocks() -> bool:
    """Before there are threads, best. False: this C library has no such thing (musl, macOS)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))
