"""How large arrays get their memory: on huge pages, and without giving it back between steps.

An array is otherwise mapped in pages of 4 KiB, each of which costs a fault when it is first written, and again after
the array was freed and its memory went back to the system. torch asks for huge pages where it is told to; but it then
aligns arrays to 2 MiB, and freed ones of about that size would go back to the system each time. So what is freed is
kept as well, up to a bound. Both are settings of the process, and of those that it starts.
"""

import ctypes
import os
import sys

SWITCH = "THP_MEM_ALLOC_ENABLE"  # torch reads it once, at the first large array
# of GNU's malloc: the name in the environment, what mallopt calls it, bytes
KEPT = ("MALLOC_TRIM_THRESHOLD_", -1, 512 << 20)
MAPPED = ("MALLOC_MMAP_THRESHOLD_", -3, 32 << 20)


def prefer_huge() -> bool:
    """Ask for huge pages and keep freed memory, where the system is Linux with GNU's C library.

    Who sets the switch to 0 in the environment has neither; who sets one of malloc's bounds there keeps it. Returns
    whether it was asked.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    os.environ[SWITCH] = "1"
    for name, number, size in (KEPT, MAPPED):
        # whoever is started from here reads the environment; we are past that
        if os.environ.setdefault(name, str(size)) == str(size):
            mallopt(number, size)
    return True
