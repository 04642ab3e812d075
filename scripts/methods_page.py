"""Writes docs/methods.md from the registered methods: `python scripts/methods_page.py`; a test compares."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentrl.method import Method
from agentrl.plugins import load_host

PAGE = Path(__file__).resolve().parent.parent / "docs" / "methods.md"
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
changed weights). That shows that it runs, not that it learns: runs that were shown to learn are in `recipes/`.
This page is written by `scripts/methods_page.py`.

| method | paper | what it is | stages beside credit and denominators | options and defaults |
|---|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    host = load_host()
    rows = []
    for entry in sorted(host.entries("methods"), key=lambda entry: entry.name):
        factory = host.factory("methods", entry.name)
        method: Method = host.create("methods", entry.name, NEEDS_OPTIONS.get(entry.name, {}), given={"host": host})
        cells = (
            f"`{entry.name}`",
            method.paper or "-",
            (inspect.getdoc(factory) or "").splitlines()[0],
            _stages(method),
            _defaults(factory),
        )
        rows.append("| " + " | ".join(cells) + " |")
    return HEAD + "\n".join(rows) + "\n"


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
