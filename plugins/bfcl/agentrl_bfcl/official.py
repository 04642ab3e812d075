"""The package's own multi-turn checker, asked about many lines: a script for the interpreter that has bfcl-eval.

It reads lines of JSON, `{"id": ..., "turns": [[["call(a=1)"]]]}`, and writes a list of verdicts. The checker keeps its
instances in globals of a module by name: every line has a name of its own, and they are dropped after it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bfcl_eval
from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_utils
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import multi_turn_checker

DATA = Path(bfcl_eval.__file__).parent / "data"


def rows(path: Path) -> dict[str, Any]:
    return {row["id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def main() -> None:
    questions: dict[str, Any] = {}
    truths: dict[str, Any] = {}
    for path in sorted(DATA.glob("BFCL_v4_multi_turn_*.json")):
        questions |= rows(path)
        truths |= rows(DATA / "possible_answer" / path.name)
    verdicts = []
    for number, text in enumerate(sys.stdin):
        asked = json.loads(text)
        name, before = asked["id"], set(vars(multi_turn_utils))
        category = name.rpartition("_")[0]
        verdict = multi_turn_checker(
            asked["turns"], truths[name]["ground_truth"], questions[name], category, f"line{number}"
        )
        verdicts.append(bool(verdict["valid"]))
        for left in set(vars(multi_turn_utils)) - before:
            delattr(multi_turn_utils, left)
    print(json.dumps(verdicts))


if __name__ == "__main__":
    main()
