"""An evaluation's result as a few lines that a stranger understands."""

from __future__ import annotations

from collections.abc import Iterator

from agentrl.evaluation.result import EvaluationResult
from agentrl.outcomes import Outcome

_SUCCESSES = (Outcome.SUCCESS, Outcome.SUSPECTED_HACK)
_MOST_LISTED = 3
"Bad tasks that are named in the table; all are in the file."


def table(result: EvaluationResult) -> list[str]:
    return [f"{name:<8} {words}" for name, words in _rows(result)]


def _rows(result: EvaluationResult) -> Iterator[tuple[str, str]]:
    score, played = result.interval(), len(result.attempts)
    if score is None:
        first = next((attempt.error for attempt in result.attempts), "")
        yield "score", f"nothing to score: all {played} attempts ended in faults. {first}"
    else:
        yield "score", f"{score.percent()} of {score.tasks} tasks (95% interval)"
    if result.null is not None:
        yield "null", f"{result.null.score.percent()} by saying nothing"
    most = max((len(scores) for scores in result.scores().values()), default=0)
    if most > 1:
        at, every = result.pass_at(most), result.pass_hat(most)
        yield "repeats", f"pass@{most} {100 * (at or 0):.1f}% · pass^{most} {100 * (every or 0):.1f}%"
    failures = {name: count for name, count in result.outcomes().items() if _failed(name)}
    if failures:
        yield "failures", " · ".join(f"{name.replace('_', ' ')} {count}" for name, count in failures.items())
    if result.outcomes().get(Outcome.SUSPECTED_HACK):
        yield "suspect", f"{result.outcomes()[Outcome.SUSPECTED_HACK]} successes look like a hack of the reward"
    if result.faults():
        faults = {name: count for name, count in result.outcomes().items() if not Outcome(name).scored}
        told = ", ".join(f"{name} {count}" for name, count in faults.items())
        yield (
            "faults",
            f"{result.faults()} of {played} attempts, not scored ({told}); the same command tries them again",
        )
    yield "length", _length(result)
    validity = result.call_validity()
    if validity is not None:
        yield "calls", f"{100 * validity:.1f}% valid"
    if result.cost():
        yield "cost", f"{result.cost():.4g}, {result.cost() / max(played, 1):.2g} an episode"
    if bad := result.manifest.known_bad:
        named = ", ".join(f"{name} ({reason})" for name, reason in list(bad.items())[:_MOST_LISTED])
        tasks = "1 task that is" if len(bad) == 1 else f"{len(bad)} tasks that are"
        yield "left out", f"{tasks} known to be bad: {named}{' ...' * (len(bad) > _MOST_LISTED)}"
    if result.stopped:
        yield "stopped", result.stopped
    yield "digest", f"{result.digest()} of suite {result.manifest.hash}"


def _length(result: EvaluationResult) -> str:
    parts = [f"{result.mean(lambda attempt: attempt.steps):.1f} steps"]
    if sampled := result.mean(lambda attempt: attempt.tokens):
        parts.append(f"{sampled:.0f} tokens sampled")
        parts.append(f"{result.mean(lambda attempt: attempt.prompt_tokens):.0f} sent")
    parts.append(f"{result.mean(lambda attempt: attempt.seconds):.2g} s an episode")
    return " · ".join(parts)


def _failed(outcome: str) -> bool:
    return Outcome(outcome).scored and outcome not in _SUCCESSES
