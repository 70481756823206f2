"""Keep large buffers in the process.

glibc gives every buffer of more than 32 MiB back to the system as soon as it is freed, and each new one is paged in
again, page by page: at 84×84 pixels half of a meta-step is page faults. Told to keep what it has, the process pays for
a page once; its memory stays at its peak instead of falling between steps.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h
_LARGEST = 2**31 - 1


def keep_large_buffers() -> bool:
    """Serve every allocation from the heap and never shrink it. False where the C library is not glibc: no change."""
    return _set((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST))


def _set(*settings: tuple[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 — only glibc has it
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(ctypes.c_int(option), ctypes.c_int(value)) == 1 for option, value in settings])
