"""Freed memory: kept where a run asks for it, given back where a phase is over. In processes of their own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, gc, json, resource, sys
import numpy as np
from agentrl.training.memory import release, retain

def fresh_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(8_000_000, 1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

kept = retain() if sys.argv[1] == "retain" else None
np.full(8_000_000, 1.0)
again, held = fresh_pages(), resident_mib()
release()
print(json.dumps({"kept": kept, "again": again, "held": held, "left": resident_mib()}))
"""

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def measured(way: str) -> dict[str, float]:
    found = subprocess.run([sys.executable, "-c", SCRIPT, way], check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(found.stdout)
    return told


def test_retained_memory_is_used_again_without_fresh_pages_until_it_is_released() -> None:
    default, retained = measured("default"), measured("retain")
    assert retained["kept"] is True
    # 61 MiB: 15,625 pages of 4 KiB, or 31 of 2 MiB where the kernel gives huge ones.
    assert default["again"] > 25 and retained["again"] < 10
    assert retained["held"] - default["held"] > 50
    assert retained["held"] - retained["left"] > 50
