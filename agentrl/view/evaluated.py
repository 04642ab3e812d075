"""What an evaluation's folder says in one sentence and a few facts, finished or not.

Numbers come from `results.json` where it covers the ledger, else from the ledger itself: a half is said to be one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentrl.evaluation.result import EvaluationResult, Manifest, NullRow
from agentrl.evaluation.statistics import Interval, score_interval
from agentrl.view.archive import Archive
from agentrl.view.curves import manner
from agentrl.view.shapes import Fact

MOST_TASKS = 5000
"Tasks that an interval is computed for where no result holds one: resampling more takes seconds."
FAULTS = ("environment", "infrastructure")


def evaluation_told(archive: Archive) -> tuple[str, list[Fact]]:
    """The verdict and the facts under it."""
    manifest, result = archive.manifest(), archive.result()
    outcomes = archive.outcomes()
    played = sum(outcomes.values())
    complete = result is not None and len(result.attempts) == played
    facts = list(_score(archive, result if complete else None))
    if not facts:
        return "Nothing is known yet: no attempt was scored.", list(_conditions(manifest))
    if result is not None and complete:
        facts += _result(result)
    faults = sum(outcomes.get(name, 0) for name in FAULTS)
    facts.append(Fact("faults", str(faults), f"of {played} attempts; not scored", "bad" if faults else ""))
    facts += _conditions(manifest)
    return _verdict(facts[0], manifest, result if complete else None), facts


def _verdict(score: Fact, manifest: Manifest | None, result: EvaluationResult | None) -> str:
    who = manifest.policy if manifest else "The policy"
    what = f"{manifest.suite} {manifest.version}" if manifest else "these tasks"
    said = f"{who} scores {score.value} on {what} ({score.note})"
    if result is None:
        return f"So far {said}; the evaluation is not finished."
    if result.stopped:
        said = f"{said}; it stopped early: {result.stopped}"
    null = result.null
    if null is None:
        return f"{said}. What a policy that says nothing scores is not known."
    own = result.interval()
    where = "above" if own is not None and own.low > null.score.high else "not clearly above"
    return f"{said}, {where} the {null.score.percent()} of a policy that says nothing."


def _score(archive: Archive, result: EvaluationResult | None) -> Sequence[Fact]:
    successes = archive.successes() if result is None else result.scores()
    if not successes:
        return ()
    attempts = sum(map(len, successes.values()))
    interval = _interval(successes) if result is None else result.interval()
    means = [sum(tries) / len(tries) for tries in successes.values()]
    shown = interval.percent() if interval else f"{100 * sum(means) / len(means):.1f}%"
    return (Fact("success" if result is None else "score", shown, f"{len(successes)} tasks, {attempts} attempts"),)


def _interval(successes: Mapping[str, Sequence[float]]) -> Interval | None:
    return score_interval(successes) if len(successes) <= MOST_TASKS else None


def _result(result: EvaluationResult) -> list[Fact]:
    found = [_null(result.null)] if result.null else []
    most = max((len(tries) for tries in result.successes().values()), default=0)
    if most > 1:
        at, hat = result.pass_at(most), result.pass_hat(most)
        if at is not None and hat is not None:
            found.append(Fact(f"pass@{most}", f"{100 * at:.1f}%", "at least one attempt succeeds"))
            found.append(Fact(f"pass^{most}", f"{100 * hat:.1f}%", "all attempts succeed"))
    validity = result.call_validity()
    if validity is not None:
        found.append(Fact("valid tool calls", f"{100 * validity:.1f}%"))
    found.append(Fact("steps", f"{result.mean(lambda attempt: attempt.steps):.1f}", "an attempt, mean"))
    found.append(Fact("sampled tokens", f"{result.mean(lambda attempt: attempt.tokens):.0f}", "an attempt, mean"))
    if result.cost():
        found.append(Fact("cost", f"{result.cost():.4g}", "of all attempts"))
    return found


def _null(null: NullRow) -> Fact:
    return Fact("a policy that says nothing", null.score.percent(), f"mean reward {null.reward:.3g}")


def _conditions(manifest: Manifest | None) -> Sequence[Fact]:
    if manifest is None:
        return ()
    sampled = manifest.conditions
    bad = ", ".join(manifest.known_bad)
    facts = [
        Fact("suite", f"{manifest.suite} {manifest.version}", f"hash {manifest.hash[:12]}"),
        Fact("policy", manifest.policy, f"{manner(sampled.temperature)}, seed {sampled.seed}"),
        Fact("played with", ", ".join(f"{name} {version}" for name, version in manifest.distributions.items())),
    ]
    return [*facts, Fact("left out", bad, "tasks that are known to be bad")] if bad else facts
