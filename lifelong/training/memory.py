"""How the process keeps memory between training steps."""

import ctypes

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors for the next ones, instead of giving it back to the system at once.

    A training step frees and asks again for the same tens of megabytes hundreds of times; by default the C library returns every
    large block to the system, which then has to clear and map its pages anew. No number changes; the process stays as large as it
    ever was. To be called once, at the start of a program that trains.

    Returns:
        Whether the C library can be told so (glibc on Linux).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Nothing by mmap, which is unmapped when freed; and never cut the top of the heap.
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
