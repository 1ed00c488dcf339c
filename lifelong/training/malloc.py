"""Tell the C library's malloc to keep memory between training steps."""

import ctypes
import os
from functools import cache

import torch

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones, instead of giving it back to the system at once.

    A training step frees and requests the same tens of megabytes hundreds of times; by default the C library returns every
    large block to the system, which then has to clear and map its pages again. No number changes; the process stays as large as it
    ever was. Call it once, at the start of a program that trains.

    Returns:
        Whether the C library supports it (glibc on Linux).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    # Nothing by mmap, which is unmapped when freed; and never cut the top of the heap.
    told = bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
    _lay_small_blocks_aside()
    return told


def return_freed_memory() -> None:
    """Give the memory of freed tensors back to the system, once; for a process that will need less from now on."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


SMALL_SIZES = range(24, 160, 16)
"""Bytes of small blocks: one in each class of sizes that glibc has from the smallest up."""

SMALL_BLOCKS = 4000
"""Blocks of each of these sizes that are laid aside (5 MB, in 0.03 s)."""


@cache
def _lay_small_blocks_aside() -> None:
    """Make many small free blocks, which later small requests take, instead of splinters between large blocks.

    Measured (glibc 2.36, seven runs): a cell search with 64 channels peaks at 2.0 to 2.1 GB instead of 2.4; the training of an expert stays
    as it is. The likely reason, not proven: tensors are aligned to 64 bytes, for which the C library cuts splinters off both ends of a
    block, and where something small then lives in a splinter, the block next to it can never again hold a tensor of its own size.
    """
    library = ctypes.CDLL(None)
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.free.argtypes, library.free.restype = [ctypes.c_void_p], None
    blocks = []
    for size in SMALL_SIZES:
        for _ in range(SMALL_BLOCKS):
            blocks.append(library.malloc(size))
            library.malloc(SMALL_SIZES[0])  # stays, so that free neighbours do not become one
    for block in blocks:
        library.free(block)
    library.free(library.malloc(1 << 20))  # a large request: the C library now sorts the small ones by size


LARGEST_KEPT = 2**25 - 2**16
"""Bytes of the largest block that glibc learns from (DEFAULT_MMAP_THRESHOLD_MAX), less room for what surrounds a block."""


def keep_small_blocks() -> None:
    """Let the C library keep up to 64 MB of freed memory, as it does by itself in any program that has freed a block of 32 MB.

    A library call may not do what `keep_freed_memory` does to the program around it. But glibc adapts: a block that is freed raises the
    size from which blocks are given back to the system at once up to its own, to 32 MB at most, and twice as much may stay unused
    (mallopt(3), M_MMAP_THRESHOLD). Without that, also the smallest network's maps are given back after every operation. A program that
    has set these limits itself keeps them, and so does another C library.
    """
    torch.empty(LARGEST_KEPT, dtype=torch.uint8)  # freed at once, and never touched: no memory is taken from the system
