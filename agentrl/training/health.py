"""What is wrong with a run, in plain words, and what to try.

Each rule looks at the mean of the last few batches, so that one odd batch raises no alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentrl.training.report import ProgressReport

WINDOW = 5
"Batches that a rule looks at."
FLAT_GROUPS = 0.8
MALFORMED_CALLS = 0.3
MISMATCH = 0.1
"Nats: above it the importance ratio is off by a tenth for the average token."
COLLAPSED_ENTROPY = 0.1
"Of the run's first batches."
TRUNCATED = 0.5
FAILED = 0.1
STILL_LEARNING = 0.95
"Success above which a low entropy or flat groups are what winning looks like."


def health_lines(history: Sequence[ProgressReport]) -> list[str]:
    """One line for each thing that is wrong now, worst first; empty where all is well or nothing is known yet."""
    if not history:
        return []
    recent = history[-WINDOW:]
    rules: tuple[Callable[[Sequence[ProgressReport]], str], ...] = (_failures, _mismatch, _calls, _flat, _truncation)
    lines = [rule(recent) for rule in rules]
    lines.append(_entropy(history[:WINDOW], recent) if len(history) >= 2 * WINDOW else "")
    return [line for line in lines if line]


def _failures(recent: Sequence[ProgressReport]) -> str:
    share = _mean([r.failed for r in recent])
    if share <= FAILED:
        return ""
    return (
        f"{share:.0%} of the episodes ended in a fault and were dropped. They are not the model's mistakes: "
        "try `agentrl env check`, fewer environments at once or longer deadlines."
    )


def _mismatch(recent: Sequence[ProgressReport]) -> str:
    nats = _mean([r.mismatch for r in recent])
    if not nats > MISMATCH:
        return ""
    return (
        f"engine and learner disagree by {nats:.2f} nats a token: the weights or the precision differ. "
        'Check that publishing is verified, try dtype = "float32" or max_staleness = 0.'
    )


def _calls(recent: Sequence[ProgressReport]) -> str:
    if all(r.calls == 0 and r.offers_tools for r in recent):
        return (
            "no tool was ever called. Check that the renderer shows the tools, "
            "or begin with a warm start ([warm_start]) on demonstrations."
        )
    bad = 1.0 - _mean([r.call_validity for r in recent], default=1.0)
    if bad <= MALFORMED_CALLS:
        return ""
    return (
        f"{bad:.0%} of the tool calls are malformed or invalid. Try a warm start on demonstrations, "
        "fewer or simpler tools, or a larger max_tokens if calls are cut off."
    )


def _flat(recent: Sequence[ProgressReport]) -> str:
    share = _mean([r.flat_groups for r in recent])
    success = _mean([r.success for r in recent])
    if share <= FLAT_GROUPS:
        return ""
    if success >= STILL_LEARNING:
        return f"{share:.0%} of the groups have no signal because nearly all succeed. Try harder tasks."
    return (
        f"{share:.0%} of the groups have equal rewards, so there is next to no gradient. "
        "Try easier tasks or a warm start, a larger group, a higher temperature or step rewards."
    )


def _truncation(recent: Sequence[ProgressReport]) -> str:
    share = _mean([r.truncated for r in recent])
    if share <= TRUNCATED:
        return ""
    return f"{share:.0%} of the episodes were cut by a limit. Try more max_steps, max_tokens or max_context."


def _entropy(first: Sequence[ProgressReport], recent: Sequence[ProgressReport]) -> str:
    before = _mean([r.entropy for r in first])
    now = _mean([r.entropy for r in recent])
    success = _mean([r.success for r in recent])
    if not (before > 0 and now < COLLAPSED_ENTROPY * before) or success >= STILL_LEARNING:
        return ""
    return (
        f"entropy fell from {before:.2f} to {now:.3f} nats a token while success is {success:.0%}: the policy stopped "
        "exploring. Try a lower learning rate, an entropy bonus, or a checkpoint from before."
    )


def _mean(values: Sequence[float | None], default: float = float("nan")) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else default
