"""What may be compared: an evaluation's folder, a run's folder, or one of a run's held-out evaluations.

Whatever decides what was measured is named in `Side.suite`, so that nothing else is ever compared.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentrl.errors import ConfigError, StoreError
from agentrl.evaluation.comparison import Side
from agentrl.evaluation.harness import Evaluation
from agentrl.evaluation.result import MANIFEST, RESULTS, EvaluationResult, load_result
from agentrl.runs.folder import RunFolder


def open_side(path: Path) -> Side:
    """Raises `ConfigError` where nothing was measured there, `StoreError` where it cannot be read.

    Of a run's folder it is the evaluation of the newest weights at the lowest temperature.
    """
    path = path.expanduser()
    if path.name in (RESULTS, MANIFEST):
        path = path.parent
    if (path / MANIFEST).is_file() or (path / RESULTS).is_file():
        return _evaluated(path, load_result(path))
    if path.is_file():
        return _held_out(RunFolder(path.parent.parent), path)
    run = RunFolder(path)
    if not run.recipe.is_file():
        raise ConfigError(
            f"{path} is neither an evaluation nor a run: it holds no {RESULTS} and no {run.recipe.name}. Give the "
            "folder of `agentrl eval` or of `agentrl train`."
        )
    found = newest_evaluations(run)
    if not found:
        raise ConfigError(
            f"the run {path} has no held-out evaluation yet. Train it to its end, or measure it: agentrl eval {path}"
        )
    return _held_out(run, found[0])


def newest_evaluations(run: RunFolder) -> list[Path]:
    """Of the newest weights that were evaluated, the lowest temperature first."""
    found = [(evaluation, path) for path, evaluation in held_out(run)]
    newest = max((evaluation.update for evaluation, _ in found), default=0)
    of_it = sorted((e.temperature, path) for e, path in found if e.update == newest)
    return [path for _, path in of_it]


def held_out(run: RunFolder) -> list[tuple[Path, Evaluation]]:
    """A run's evaluations, oldest weights first."""
    found = [(path, Evaluation.load(path)) for path in (run.path / "evaluations").glob("*.json")]
    return sorted(found, key=lambda one: (one[1].update, one[1].temperature))


def _evaluated(folder: Path, result: EvaluationResult) -> Side:
    manifest = result.manifest
    suite = {
        "suite": manifest.suite,
        "version": manifest.version,
        "environment": manifest.environment,
        "options": json.dumps(manifest.options, sort_keys=True),
        "hash": manifest.hash,
    }
    conditions = {
        "policy": manifest.policy,
        "temperature": f"{manifest.conditions.temperature:g}",
        "seed": str(manifest.conditions.seed),
        "max_tokens": str(manifest.conditions.max_tokens),
        **{f"version of {name}": version for name, version in sorted(manifest.distributions.items())},
    }
    costs = tuple(map(manifest.prices.of, result.attempts)) if result.cost() else ()
    return Side(str(folder), suite, result.attempts, conditions, costs, folder=str(folder))


def _held_out(run: RunFolder, path: Path) -> Side:
    try:
        recipe = tomllib.loads(run.recipe.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{run.recipe} cannot be read: {error}. An evaluation of a run is compared beside the run's recipe."
        ) from error
    evaluation = Evaluation.load(path)
    environment = dict(recipe.get("environment", {}))
    limits = {key: recipe.get("rollout", {}).get(key) for key in ("max_steps", "max_tokens", "max_context")}
    split = recipe.get("evaluation", {}).get("split", "test")
    suite = {
        "suite": f"held-out tasks of {environment.pop('name', evaluation.environment)}",
        "options": json.dumps(environment, sort_keys=True),
        "split": split,
        "limits": json.dumps({key: value for key, value in limits.items() if value is not None}),
        "hash": _hash(recipe.get("environment", {}), split, limits),
    }
    conditions = {
        "run": str(run.path),
        "update": str(evaluation.update),
        "temperature": f"{evaluation.temperature:g}",
    }
    # A run scores by success; its older files say nothing else.
    attempts = tuple(replace(attempt, score=float(attempt.success)) for attempt in evaluation.attempts)
    return Side(str(path), suite, attempts, conditions)


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]
