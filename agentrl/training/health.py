"""What is wrong with a run, in plain words, and what to try.

Each rule looks at the mean of the last few batches, so that one odd batch raises no alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
LENGTH_DRIFT = 2.0
"Tokens of an episode, over the run's first batches or under them."
LEARNED = 0.1
"Success gained since the first batches that makes a change of length worth it."
STALE = 0.2
"Share of the groups that may be thrown away for their age."
STALENESS = 4.0
"Versions: mean age of a trained token above which what is learned from is another policy's work."
NULL_SUCCESS = 0.1
"Share of the tasks in which an agent that says nothing may succeed."


def health_lines(history: Sequence[ProgressReport]) -> list[str]:
    """One line for each thing that is wrong now, worst first; empty where all is well or nothing is known yet."""
    if not history:
        return []
    recent = history[-WINDOW:]
    rules: tuple[Callable[[Sequence[ProgressReport]], str], ...] = (
        _failures,
        _mismatch,
        _null,
        _calls,
        _flat,
        _staleness,
        _truncation,
    )
    lines = [rule(recent) for rule in rules]
    if len(history) >= 2 * WINDOW:
        lines += [_entropy(history[:WINDOW], recent), _length(history[:WINDOW], recent)]
    return [line for line in lines if line]


def health_of(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same of a run's `metrics.jsonl`, for who reads its folder."""
    return health_lines([ProgressReport.of_metrics(line) for line in lines])


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


def _null(recent: Sequence[ProgressReport]) -> str:
    success, reward = _mean([r.null_success for r in recent]), _mean([r.null_reward for r in recent])
    if success > NULL_SUCCESS:
        return (
            f"an agent that says nothing succeeds in {success:.0%} of the tasks, so success is not the task solved. "
            "Let the environment's reward demand what is to be done; `agentrl env check` shows the tasks."
        )
    earned = _mean([r.environment_reward for r in recent])
    if not reward > earned:
        return ""
    return (
        f"saying nothing earns {reward:.2f} an episode and the policy earns {earned:.2f}: it is being taught to give "
        "up. Try smaller costs for steps and mistakes, or rewards for partial progress."
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
        "or a longer one, fewer or simpler tools, or a larger max_tokens if calls are cut off."
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


def _staleness(recent: Sequence[ProgressReport]) -> str:
    thrown = _mean([r.stale for r in recent])
    if thrown > STALE:
        return (
            f"{thrown:.0%} of the groups were too old to be trained on and were thrown away. Try a larger "
            "max_staleness, fewer tasks_per_batch ahead, or a smaller concurrency."
        )
    age = _mean([r.staleness for r in recent])
    if age <= STALENESS:
        return ""
    return (
        f"the tokens trained on are {age:.1f} policy versions old. Try a smaller max_staleness, fewer minibatches, or "
        "a method that corrects for it (docs/methods.md)."
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


def _length(first: Sequence[ProgressReport], recent: Sequence[ProgressReport]) -> str:
    before = _mean([r.tokens_per_episode for r in first])
    now = _mean([r.tokens_per_episode for r in recent])
    gained = _mean([r.success for r in recent]) - _mean([r.success for r in first])
    if not before > 0 or gained >= LEARNED:
        return ""
    said = f"from {before:.0f} to {now:.0f} sampled tokens while success went {100 * gained:+.0f} points"
    if now >= LENGTH_DRIFT * before:
        return (
            f"episodes grew {said}: length is not paying. Try the reward models overlong or step_cost, a smaller "
            "max_tokens, or a loss whose normaliser does not favour long answers."
        )
    if now * LENGTH_DRIFT <= before:
        return (
            f"episodes shrank {said}: the policy gives up early. Try smaller costs for steps, rewards for partial "
            "progress, or a lower learning rate."
        )
    return ""


def _mean(values: Sequence[float | None], default: float = float("nan")) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else default
