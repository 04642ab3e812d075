"""How long the command line and the import take to start, and what they load.

    python benchmarks/startup.py [--quick] [--out benchmarks/results/startup.json]

Every time is of a fresh process, and the commands take turns. CPU is told beside wall clock: it says the same on a busy
machine. What the interpreter itself needs (`python -c pass`) is part of every number.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

from conditions import conditions
from support.results import Verdict, finish, middle, options

HEAVY = ("torch", "transformers", "httpx", "rich", "pydantic", "numpy")
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import agentrl": ["-c", "import agentrl"],
    "agentrl --help": ["-c", "from agentrl.cli.main import run; run(['--help'])"],
    "agentrl list": ["-c", "from agentrl.cli.main import run; run(['list'])"],
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    chosen = parser.parse_args()
    before = conditions()
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(2 if chosen.quick else chosen.repeats):
        for name, words in COMMANDS.items():
            runs[name].append(seconds(words))
    measured = {
        name: {"wall_seconds": middle([w for w, _ in found]), "cpu_seconds": middle([c for _, c in found])}
        for name, found in runs.items()
    }
    print(f"{'':18}{'wall s':>8}{'CPU s':>8}")
    for name, times in measured.items():
        print(f"{name:18}{times['wall_seconds']['median']:8.3f}{times['cpu_seconds']['median']:8.3f}")
    heavy = loaded()
    print(f"agentrl --help loads of {', '.join(HEAVY)}: {', '.join(heavy) or 'none'}")
    verdicts = [
        Verdict("agentrl --help", measured["agentrl --help"]["wall_seconds"]["median"], "below", 0.3, "s"),
        Verdict("torch loaded by import agentrl", float("torch" in loaded("import agentrl")), "at most", 0),
    ]
    finish(chosen, before, {"times": measured, "loaded by agentrl --help": heavy}, verdicts)


def seconds(words: list[str]) -> tuple[float, float]:
    """Wall clock and CPU of one fresh process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def loaded(code: str = "from agentrl.cli.main import run\ntry: run(['--help'])\nexcept SystemExit: pass") -> list[str]:
    """Those of the heavy modules that `code` imports; by default `agentrl --help`, which loads none if all is well."""
    tell = f"import json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, check=True)
    return list(json.loads(done.stderr))


if __name__ == "__main__":
    main()
