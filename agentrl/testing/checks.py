"""Proves an environment sound, or names what is not: the check behind `agentrl env check`, and a pytest helper.

A check that cannot run because of a fault is skipped and says so; the fault itself is always reported once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from agentrl.blame import AuthorFault, frames_of, own_place, place
from agentrl.errors import AgentRLError, ConfigError
from agentrl.testing.declarations import check_construct, check_tasks, check_tools
from agentrl.testing.elsewhere import check_processes, taken_apart
from agentrl.testing.episodes import advance, begin, blaming
from agentrl.testing.pace import Pace, Progress, Silent
from agentrl.testing.report import CheckReport, CheckResult, failed, passed, skipped
from agentrl.testing.sameness import check_parallel, check_replay, check_snapshot
from agentrl.testing.subject import BLOCK_LIMIT, FIRST_USE_LIMIT, Subject
from agentrl.testing.watch import Census
from agentrl.testing.winning import check_cheats, check_null, check_oracle, check_random
from agentrl.types import Action

OBSERVATION_LIMIT = 100_000
"Characters that one observation may hold: about 25,000 tokens, more than most contexts."
_PATIENCE = 1.0
"Seconds that processes and threads are given to end after `close`."

Check = Callable[[Subject], Awaitable[CheckResult]]


def check_environment(
    factory: Callable[[], object],
    *,
    tasks: int = 8,
    seed: int = 0,
    observation_limit: int = OBSERVATION_LIMIT,
    seconds: float = math.inf,
    progress: Progress | None = None,
) -> CheckReport:
    """Play `tasks` tasks in every way that must hold. Takes as long as about 50 episodes; starts an event loop.

    `factory` makes a new instance (an `Env` class is one). Of a slow world each check plays what it can in
    `seconds`, and the report says what was left out. Raises `ConfigError` inside a running event loop, and where the
    factory does: then the options are wrong. What is wrong with the environment is in the report.
    """
    target, _ = taken_apart(factory)
    name = getattr(target, "__name__", repr(target))
    if tasks < 1:
        raise ConfigError(f"tasks is {tasks}; at least 1 task is needed to check {name}.")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise ConfigError(f"check_environment({name}) starts an event loop: call it from a plain function.")
    pace = Pace(seconds, progress or Silent())
    try:
        subject = Subject(factory, seed, pace)
    except ConfigError:
        raise
    except Exception as error:
        owner = target if isinstance(target, type) else type(target)
        where = place(owner, "__init__", frames_of(error.__traceback__))
        what = f"{type(error).__name__}: {error}"
        advice = "Give the options that it needs, as key=value, or mend what it needs to be made."
        advice = "" if isinstance(error, AgentRLError) else advice  # it says itself what to do
        refused = failed("construct", what, where, advice)
        pace.progress.found(refused)
        return CheckReport(name, (refused,))
    results: list[CheckResult] = []

    def keep(result: CheckResult) -> None:
        results.append(result)
        pace.progress.found(result)

    keep(check_construct(subject))
    if named := bool(subject.tools):
        keep(check_tools(subject))
    keep(_tasks(subject, tasks))
    if subject.sample:
        asyncio.run(_play(subject, keep))
        if not named:
            # A server or a task may name them, which is not before a reset.
            keep(check_tools(subject))
        for check in (_closed, _deadline, _event_loop, _rewards):
            keep(check(subject))
        keep(_observations(subject, observation_limit))
        keep(_faults(subject))
        pace.progress.playing("processes", 0, 0)
        keep(_elsewhere(subject, factory, results))
    return CheckReport(subject.name, tuple(results), pace.told())


def assert_environment(
    factory: Callable[[], object], *, tasks: int = 8, seed: int = 0, observation_limit: int = OBSERVATION_LIMIT
) -> None:
    """For pytest: raises `AssertionError` with the report where a check fails."""
    report = check_environment(factory, tasks=tasks, seed=seed, observation_limit=observation_limit)
    if not report.ok:
        raise AssertionError(f"\n{report}")


def _tasks(subject: Subject, tasks: int) -> CheckResult:
    try:
        return check_tasks(subject, tasks)
    except AuthorFault as fault:
        return failed("tasks", str(fault), fault.where, "`tasks` needs no reset and no options.")


async def _play(subject: Subject, keep: Callable[[CheckResult], None]) -> None:
    """The checks that play tasks, each told to `keep` when it is done."""

    async def run(name: str, check: Check, needs: str = "") -> CheckResult:
        subject.pace.progress.playing(name, 0, 0)
        if subject.hung:
            result = skipped(name, "not tried: a call hangs, see 'deadline'")
        elif needs:
            result = skipped(name, f"not tried: {needs}")
        else:
            try:
                result = await check(subject)
            except AuthorFault as fault:
                subject.faults.append(fault)
                result = skipped(name, f"cut short by a fault, see {_check_of(fault)!r}")
        keep(result)
        return result

    with subject.watch.watching():
        await run("oracle", check_oracle)
        await run("null", check_null)
        await run("random", check_random)
        await run("cheats", check_cheats)
        lacking = "" if subject.oracle or subject.random else "no episode was played to its end"
        replayed = await run("same_seed", check_replay, lacking)
        differs = "it differs when played alone, see 'same_seed'" if replayed.outcome == "failed" else lacking
        beside = await run("parallel", check_parallel, differs)
        touches = "two copies touch each other, see 'parallel'" if beside.outcome == "failed" else differs
        await run("snapshot", check_snapshot, touches)


def _closed(subject: Subject) -> CheckResult:
    """Close after an episode, in the middle of one, twice, and without a reset: nothing raises, nothing stays."""
    where = subject.where("close", "reset")
    if subject.hung:
        return skipped("close", "not tried: a call hangs, see 'deadline'")
    census = Census()
    try:
        tasks = asyncio.run(_open_and_close(subject))
    except AuthorFault as fault:
        if fault.method != "close":
            return skipped("close", f"cut short by a fault, see {_check_of(fault)!r}")
        tasks = []
        subject.close_faults.append(fault)
    if subject.close_faults:
        first = subject.close_faults[0]
        return failed("close", str(first), first.where, "`close` must work after an episode, within one, without one.")
    if tasks:
        what = f"after `close` an asyncio task still runs at {', '.join(tasks)}"
        return failed("close", what, tasks[0], "Cancel and await in `close` what `reset` starts.")
    if left := census.leftovers(_PATIENCE):
        advice = "End and wait for in `close` (and in `reset`, for the last episode) what `reset` or a tool starts."
        return failed("close", f"{_PATIENCE:g} s after `close` there is still {left}", where, advice)
    return passed("close", "twice, mid-episode and without a reset; no process, thread or task stays")


async def _open_and_close(subject: Subject) -> list[str]:
    """Places of the author's asyncio tasks that outlive `close`."""
    recorded = next(iter([*subject.oracle, *subject.random]), None)
    task, actions = (recorded.task, recorded.actions) if recorded else (subject.sample[0], [Action()])
    before = asyncio.all_tasks()
    for count in (len(actions), 1, None):
        environment = subject.new()
        if count is not None:
            episode = await begin(environment, task)
            for action in actions[:count]:
                if not episode.ended:
                    await advance(environment, episode, action)
        with blaming(environment, "close"):
            await environment.close()
            await environment.close()
    await asyncio.sleep(0.01)
    places = []
    for left in asyncio.all_tasks() - before:
        stack = left.get_stack()
        found = own_place(subject.owner, frames_of(stack[-1])) if stack else None
        places.append(found or subject.where("reset"))
    return places


def _elsewhere(subject: Subject, factory: Callable[[], object], so_far: list[CheckResult]) -> CheckResult:
    if any(result.outcome == "failed" for result in so_far):
        return skipped("processes", "not tried: mend what failed first")
    return check_processes(subject, factory)


def _deadline(subject: Subject) -> CheckResult:
    _, step, reset = subject.limits
    for fault in subject.faults:
        if fault.kind == "deadline":
            advice = "Give every wait a timeout of its own, shorter than the deadline."
            return failed("deadline", f"cut at its deadline: {fault}", fault.where, advice)
    if not (math.isfinite(step) and math.isfinite(reset)):
        what = f"step_deadline is {step} and reset_deadline {reset}"
        return failed("deadline", what, subject.where("reset"), "A deadline is a finite number of seconds.")
    slowest = max((s for e in (*subject.oracle, *subject.random) for s in e.seconds), default=0.0)
    if slowest > 0.8 * step:
        what = f"the slowest step took {slowest:.2f} s of {step:g} s"
        return failed("deadline", what, subject.where("reset"), "Raise `step_deadline`, or make the step faster.")
    return passed("deadline", f"the slowest step took {slowest:.2f} s of {step:g} s")


def _event_loop(subject: Subject) -> CheckResult:
    block = subject.watch.longest()
    if block is None:
        return passed("event_loop", f"never held for more than {BLOCK_LIMIT:g} s")
    if len(subject.watch.blocks) == 1 and block.seconds <= FIRST_USE_LIMIT:
        what = f"held for {block.seconds:.2f} s at {block.where}, once: what is loaded at its first use"
        return passed("event_loop", f"{what}; else never for more than {BLOCK_LIMIT:g} s")
    what = f"held for {block.seconds:.2f} s (allowed: {BLOCK_LIMIT:g} s); every other episode stood still"
    advice = "Await it, hand it to asyncio.to_thread, or write plain `def` methods without runs_in 'loop'."
    return failed("event_loop", what, block.where, advice)


def _rewards(subject: Subject) -> CheckResult:
    for fault in subject.faults:
        if fault.kind == "not_finite":
            return failed("rewards", str(fault), fault.where, "Return a finite float; never divide by a count of 0.")
    episodes = (*subject.oracle, *subject.random, *subject.others)
    values = [result.reward for episode in episodes for result in episode.results]
    if not values:
        return skipped("rewards", "no episode was played to its end")
    return passed("rewards", f"{len(values)} finite numbers from {min(values):g} to {max(values):g}")


def _observations(subject: Subject, limit: int) -> CheckResult:
    largest = 0
    for episode in (*subject.oracle, *subject.random, *subject.others):
        for index, observation in enumerate(episode.observations):
            size = sum(len(message.content) for message in observation.messages)
            largest = max(largest, size)
            if size > limit:
                what = f"task {episode.task.id!r} shows {size:,} characters at once; allowed are {limit:,}"
                advice = "Show less: a page, a summary, or a tool that reads on."
                return failed("observations", what, subject.where_step(episode, index - 1), advice)
    return passed("observations", f"the largest has {largest:,} characters")


def _faults(subject: Subject) -> CheckResult:
    for fault in subject.faults:
        if _check_of(fault) == "faults":
            return failed("faults", str(fault), fault.where, "Only ToolError is told to the model; mend the rest.")
    return passed("faults", "no method raised")


def _check_of(fault: AuthorFault) -> str:
    return {"deadline": "deadline", "not_finite": "rewards"}.get(fault.kind, "faults")
