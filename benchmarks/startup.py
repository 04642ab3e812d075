"""How long the command line and the import take to start, and what they load.

Prints one JSON line: medians over fresh processes of wall clock and CPU, with the machine's load beside them.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

RUNS = 15
HEAVY = ("torch", "transformers", "httpx", "rich", "pydantic", "numpy")
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import agentrl": ["-c", "import agentrl"],
    "agentrl --help": ["-c", "from agentrl.cli.main import run; run(['--help'])"],
    "agentrl list": ["-c", "from agentrl.cli.main import run; run(['list'])"],
}


def main() -> None:
    measured = {name: [seconds(words) for _ in range(RUNS)] for name, words in COMMANDS.items()}
    print(
        json.dumps(
            {
                "wall seconds": {name: middle([wall for wall, _ in runs]) for name, runs in measured.items()},
                "cpu seconds": {name: middle([cpu for _, cpu in runs]) for name, runs in measured.items()},
                "loaded by agentrl --help": loaded(),
                "python": platform.python_version(),
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 2),
            }
        )
    )


def seconds(words: list[str]) -> tuple[float, float]:
    """Wall clock and CPU of one fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def middle(values: list[float]) -> float:
    return round(statistics.median(values), 4)


def loaded() -> list[str]:
    """Those of the heavy modules that `agentrl --help` imports; none, if all is well."""
    code = (
        "import sys\nfrom agentrl.cli.main import run\n"
        "try: run(['--help'])\nexcept SystemExit: pass\n"
        f"print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(done.stderr.replace("'", '"')))


if __name__ == "__main__":
    main()
