"""Writes docs/methods.md from the registered methods, their checks, the recipes and the kept results; a test compares.

PYTHONPATH=benchmarks:tests/unit python scripts/methods_page.py
"""

from __future__ import annotations

import inspect
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from learning.cells import RESULTS, read
from learning.strategies import ARMS
from learning.transformer import START
from method_checks import CHECKS, Check

from agentrl.method import Method
from agentrl.plugins import load_host

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "methods.md"
NEEDS_OPTIONS: dict[str, dict[str, Any]] = {
    "custom": {"credit": [{"name": "episode"}]},
    "normalised_terms": {"weights": {"success": 1.0}},
}
HEAD = """# Methods

A method is a preset of one pipeline (`agentrl/method.py`): curation of groups, shaping of rewards and anchors, credit
per step, credit and weights per token, the objective, denominators. A recipe names one, with its options:

```toml
[method]
name = "gigpo"
gamma = 0.95
```

Every method here makes two updates on real keydoor trajectories in `tests/integration/test_every_method.py` (finite,
changed weights), and keeps what `tests/unit/test_method_promises.py` says of its credit. That shows that it runs.

- **Checked** names the test of what is the method's own: *published numbers* of a paper or its public code, a
  *hand-worked* example, an *identity* with something known, or an *invariant* of random inputs.
- **Shown in** names where it was seen to learn: a recipe whose curve is in [recipes](../recipes/README.md), or kept
  runs whose mean success rose; [what learns](learning.md) compares them. `tabular` and `strategies` train a table of
  logits by a method's credit and denominators, under the default clip in place of its objective.

This page is written by `PYTHONPATH=benchmarks:tests/unit python scripts/methods_page.py`.

| method | paper | what it is | checked | shown in | stages beside credit and denominators | options and defaults |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    host = load_host()
    shown = _shown()
    rows = []
    for entry in sorted(host.entries("methods"), key=lambda entry: entry.name):
        factory = host.factory("methods", entry.name)
        method: Method = host.create("methods", entry.name, NEEDS_OPTIONS.get(entry.name, {}), given={"host": host})
        cells = (
            f"`{entry.name}`",
            method.paper or "-",
            (inspect.getdoc(factory) or "").splitlines()[0],
            _checked(CHECKS.get(entry.name, ())),
            ", ".join(shown[entry.name]) or "-",
            _stages(method),
            _defaults(factory),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return HEAD + "\n".join(rows) + "\n"


def _checked(checks: Iterable[Check]) -> str:
    return "; ".join(f"{each.kind}: [{each.test}](../tests/unit/{each.file}.py)" for each in checks) or "-"


def _shown() -> defaultdict[str, list[str]]:
    """By method, links to the recipes that name it and to the files of results in which it learned."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for recipe in sorted((ROOT / "recipes").glob("*.toml")):
        method = tomllib.loads(recipe.read_text(encoding="utf-8")).get("method", {}).get("name")
        if method:
            found[method].append(f"[{recipe.name}](../recipes/{recipe.name})")
    for file in sorted(RESULTS.glob("*.jsonl")):
        for method in sorted(_learned(file)):
            found[method].append(f"[{file.name}](../benchmarks/results/learning/{file.name})")
    return found


def _learned(file: Path) -> set[str]:
    """Methods whose success rose in the runs of some cell, in the mean over its seeds: on held-out tasks over that of
    the start where it was measured, else from the first batches to the last."""
    gains: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    results = read(file)
    starts = {(r.cell.setting, r.cell.seed): r.measured["held_out"] for r in results if r.cell.method == START}
    for result in results:
        cell, curve = result.cell, result.measured.get("success")
        before = starts.get((cell.setting, cell.seed))
        if isinstance(curve, list):
            rise = curve[-1] - curve[0] if before is None else float(result.measured["held_out"]) - float(before)
            gains[cell.setting, cell.method].append(rise)
    # A cell is named by its method and what is changed in it, or by how its groups are made.
    return {
        ARMS[cell].method if cell in ARMS else cell.split(",")[0]
        for (_, cell), values in gains.items()
        if mean(values) > 0
    }


def _stages(method: Method) -> str:
    """The optional stages that it uses."""
    objective = method.objective()
    named = {
        "S5 curation": method.curations,
        "S2, S3 shaping": method.shapings,
        "S4 on tokens": (*method.token_credits, *objective.credits),
        "S6 weights": (*method.token_weights, *objective.weights),
        "off-policy correction": objective.correction,
        "S9 regulariser": objective.regularisers,
        "S11 gate": objective.gate,
        "critic": method.critic,
        "reference": objective.needs_reference,
        "teacher": objective.needs_teacher,
    }
    return ", ".join(name for name, part in named.items() if part) or "-"


def _defaults(factory: Callable[..., Any]) -> str:
    found = []
    for name, parameter in inspect.signature(factory).parameters.items():
        if name in ("host", "objective", "clip", "critic"):
            continue
        default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
        found.append(f"`{name}{default}`")
    return ", ".join(found) or "-"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
