"""Checks of who wins: the oracle always, and nobody who did not do the task.

Winning is success, or a return as high as the oracle's: training follows the return, whatever success says.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from agentrl.agents import ScriptedAgent, null_agent, oracle_agent, random_agent
from agentrl.testing.episodes import Episode, action_text, begin
from agentrl.testing.report import CheckResult, failed, passed, skipped
from agentrl.testing.subject import Subject
from agentrl.types import Task

_RANDOM_EPISODES = 2
"Random episodes per task."


async def check_oracle(subject: Subject) -> CheckResult:
    where = subject.where("oracle", "tasks")
    if not subject.has_oracle:
        return skipped("oracle", "it has none: nothing proves that a task can be won. Write `oracle(self, task)`")
    for task in subject.pace.in_time("oracle", subject.sample):
        made: list[ScriptedAgent] = []

        def choose(environment: Any, task: Task, made: list[ScriptedAgent] = made) -> ScriptedAgent:
            made.append(oracle_agent(environment, task))
            return made[-1]

        episode = await subject.play(task, choose)
        played = f"on task {task.id!r} it played {action_text(episode.actions)}"
        # First: an oracle whose call is refused often runs out of actions as well, which is not what is to be mended.
        if mistake := next((result.policy_error for result in episode.results if result.policy_error), ""):
            advice = "The oracle's calls must be valid calls of the tools: methods with `@tool` above them."
            return failed("oracle", f"{played}, and made a mistake: {mistake}", where, advice)
        if made[0].exhausted:
            advice = "Yield actions until the episode ends (a last `say(...)` ends it unless `answered` replies)."
            return failed("oracle", f"{played}; the last one was not its own: it had no more", where, advice)
        if not episode.success:
            advice = "Let the oracle win every task, or drop the tasks that cannot be won."
            what = f"{played}: {_outcome(subject, episode)}, no success"
            return failed("oracle", what, where, advice)
        subject.oracle.append(episode)
    steps = [len(episode.results) for episode in subject.oracle]
    return passed("oracle", f"wins {len(steps)} of {len(steps)} tasks in {min(steps)} to {max(steps)} steps")


async def check_null(subject: Subject) -> CheckResult:
    where = subject.where("reward", "scores", "step_reward", "step", "reset")
    count = 0
    for task in subject.pace.in_time("null", subject.sample):
        episode = await subject.play(task, null_agent, seconds=subject.pace.episode)
        subject.others.append(episode)
        count += 1
        if _wins(subject, episode):
            what = f"saying nothing wins task {task.id!r}: {_outcome(subject, episode)}"
            return failed("null", what, where, "Give no reward for a world in which nothing was done.")
    return passed("null", f"saying nothing wins 0 of {count}")


async def check_random(subject: Subject) -> CheckResult:
    where = subject.where("reward", "scores", "step_reward", "step", "reset")
    for task in subject.pace.in_time("random", subject.sample):
        for salt in range(_RANDOM_EPISODES):
            subject.random.append(await subject.play(task, random_agent, salt, seconds=subject.pace.episode))
    wins = sum(episode.success for episode in subject.random)
    count = len(subject.random)
    mean = sum(episode.reward for episode in subject.random) / count
    best = [episode.reward for episode in subject.oracle]
    advice = "Make the tasks longer or the choices more: chance must win less than half as often as the oracle."
    if 2 * wins >= count:
        return failed("random", f"random calls win {wins} of {count}", where, advice)
    if best and mean >= sum(best) / len(best):
        what = f"random calls return {mean:.3g} on average, the oracle {sum(best) / len(best):.3g}"
        advice = "Rewards per step must not add up to more than the task is worth."
        return failed("random", what, where, advice)
    return passed("random", f"random calls win {wins} of {count}, mean return {mean:.3g}")


async def check_cheats(subject: Subject) -> CheckResult:
    where = subject.where("cheats", "reward")
    names: dict[str, int] = {}
    for task in subject.pace.in_time("cheats", subject.sample):
        for name in await _cheat_names(subject, task):
            episode = await subject.play(task, functools.partial(_cheat, name))
            subject.others.append(episode)
            names[name] = names.get(name, 0) + 1
            if _wins(subject, episode):
                played = f"the cheat {name!r} wins task {task.id!r} with {action_text(episode.actions)}"
                advice = f"Close the hole in the reward at {subject.where('reward', 'scores', 'step_reward', 'step')}."
                return failed("cheats", f"{played}: {_outcome(subject, episode)}", where, advice)
    if not names:
        return skipped("cheats", "none are named; `cheats(self, task)` names lines of play that must not win")
    return passed("cheats", f"none of {', '.join(names)} wins")


def _cheat(name: str, environment: Any, task: Task) -> ScriptedAgent:
    return ScriptedAgent(environment.cheats(task)[name])


async def _cheat_names(subject: Subject, task: Task) -> Sequence[str]:
    """The names depend on the world after the reset."""
    async with subject.opened() as environment:
        if not hasattr(environment, "cheats"):
            return ()
        await begin(environment, task)
        return tuple(environment.cheats(task))


def _wins(subject: Subject, episode: Episode) -> bool:
    rivals = [oracle.reward for oracle in subject.oracle if oracle.task.id == episode.task.id]
    return episode.success or any(episode.reward >= rival for rival in rivals)


def _outcome(subject: Subject, episode: Episode) -> str:
    rivals = [oracle.reward for oracle in subject.oracle if oracle.task.id == episode.task.id]
    against = f" (the oracle's: {rivals[0]:g})" if rivals else ""
    scores = dict(episode.results[-1].scores) if episode.results else {}
    return f"return {episode.reward:g}{against}, scores {scores}"
