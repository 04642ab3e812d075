"""Memory that freed tensors leave with the C allocator.

glibc keeps an arena per thread and gives little of it back: work that moves from thread to thread holds its peak once
for each of them. So a learner works in one thread, and a phase that is over hands its arena back here.
"""

from __future__ import annotations

import ctypes
import gc


def release() -> None:
    """Give freed memory back to the system, where the C library can (glibc); a no-op elsewhere."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
