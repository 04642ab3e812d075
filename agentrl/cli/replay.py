"""`agentrl replay`: recorded episodes, taken up again, and what a person is told of them.

What is recorded is read and never written; results go to files of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentrl.cli.flags import EngineName, MaxTokens, Seed, Temperature, unfolded
from agentrl.cli.supervised import run_supervised
from agentrl.errors import ConfigError

if TYPE_CHECKING:
    from agentrl.replay.rerun import Rerun
    from agentrl.replay.rescore import Rescored
    from agentrl.replay.source import Recorded
    from agentrl.types import Trajectory

SHOWN = 20
"Episodes of a table, the most telling first; the files hold all."

commands = typer.Typer(
    help="Take recorded episodes up again: score, play or render them anew, or go on from one of their steps.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Folder = Annotated[Path, typer.Argument(help="Of a run or an evaluation.")]
Episodes = Annotated[
    list[str] | None, typer.Argument(help="Ids of episodes or of groups; all if left out.", metavar="EPISODE")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many episodes, the first ones.")]
Plugins = Annotated[list[str] | None, typer.Option("--plugin", help="A plugin beside the recorded ones. Repeatable.")]


@commands.command("rerun")
def rerun_command(
    folder: Folder,
    episodes: Episodes = None,
    limit: Limit = None,
    as_test: Annotated[
        Path | None, typer.Option("--as-test", help="Write a pytest file that plays the one episode again.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Take the recorded actions again in a fresh environment and show the first thing that differs."""
    from agentrl.replay.rerun import rerun
    from agentrl.replay.source import open_recorded

    with open_recorded(folder, plugin or []) as recorded:
        names = recorded.chosen(episodes or [], limit)
        if as_test is not None and len(names) != 1:
            raise ConfigError(f"--as-test writes one episode and {len(names)} are chosen; name one of them.")
        found = run_supervised(rerun(recorded, names))
        for one in found:
            typer.echo(_rerun_line(one))
        typer.echo(_counted([_verdict(one) for one in found]))
        if as_test is not None:
            _write_test(as_test, recorded, found[0], plugin or [])
    if not all(one.same for one in found):
        raise typer.Exit(1)


@commands.command("rescore")
def rescore_command(
    folder: Folder,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Episodes or groups (all if left out); options of the reward.", metavar="EPISODE|KEY=VALUE"
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            "--reward", help="A reward model (`agentrl list reward_models`), on top of the environment's reward."
        ),
    ] = None,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="The environment's own reward as it is now: actions are played again.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="A new file; rescored-NNN.json in the folder.")] = None,
    limit: Limit = None,
    plugin: Plugins = None,
) -> None:
    """Say what episodes would have earned under another reward or judge: which change, and by how much."""
    from agentrl.options import parse_options
    from agentrl.replay.rescore import free_name, save_rescored
    from agentrl.replay.source import open_recorded

    if (reward is None) == (not regrade):
        raise ConfigError("name one reward: --reward NAME [KEY=VALUE]..., or --regrade for the environment's own.")
    options = parse_options([word for word in words or [] if "=" in word])
    if regrade and options:
        raise ConfigError(f"--regrade takes no options, and {', '.join(options)} is given. They are those of --reward.")
    with open_recorded(folder, plugin or []) as recorded:
        names = recorded.chosen([word for word in words or [] if "=" not in word], limit)
        if reward is None:
            found = _regraded(recorded, names)
        else:
            found = run_supervised(_rescored(recorded, names, {"name": reward, **options}))
        path = out or free_name(folder)
        save_rescored(path, {"name": reward or "the environment", **options}, found)
    for line in _rescored_table(found):
        typer.echo(line)
    typer.echo(f"saved {path}")


@commands.command("rerender")
def rerender_command(
    folder: Folder,
    episodes: Episodes = None,
    renderer: Annotated[
        str | None, typer.Option("--renderer", help="Another than the run's; `agentrl list renderers` shows them.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose tokenizer, where the folder does not say.")
    ] = None,
    limit: Limit = None,
    plugin: Plugins = None,
) -> None:
    """Render the recorded messages again and prove the tokens, or show the first that differs."""
    from agentrl.replay.models import context_of, renderer_of
    from agentrl.replay.rerender import rerender_all
    from agentrl.replay.source import open_recorded

    with open_recorded(folder, plugin or []) as recorded:
        names = recorded.chosen(episodes or [], limit)
        chosen = renderer_of(recorded, renderer, model)
        found = run_supervised(rerender_all(recorded, names, chosen, context_of(recorded, model)))
    for one in found:
        typer.echo(str(one))
    verdicts = ["without tokens" if not one.steps else "different" if one.differing else "the same" for one in found]
    typer.echo(f"{chosen.name}: {_counted(verdicts)}")
    if "different" in verdicts:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Anew:
    """From where on, who plays then, and how it samples."""

    step: Annotated[int, typer.Option("--from", min=0, help="The first step that is taken anew, counted from 0.")]
    policy: Annotated[
        str, typer.Option("--policy", "-m", help="As of `agentrl eval`: a run, a model, an API, oracle, ...")
    ]
    engine: EngineName = ""
    times: Annotated[int, typer.Option("--times", min=1, help="Episodes.")] = 1
    temperature: Temperature = 1.0
    seed: Seed = 0
    max_tokens: MaxTokens = None


@commands.command("continue")
@unfolded
def continue_command(
    folder: Folder,
    episode: Annotated[str, typer.Argument(help="Id of an episode.")],
    anew: Anew,
    out: Annotated[
        Path | None, typer.Option("--out", help="A new folder; continued/EPISODE@STEP in the folder by default.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Go on from one step of a recorded episode with another policy; the new episodes lie in a folder of their own."""
    from agentrl.replay.source import open_recorded

    place = out or folder / "continued" / f"{episode}@{anew.step}"
    with open_recorded(folder, plugin or []) as recorded:
        names = recorded.chosen([episode])
        if len(names) > 1:
            raise ConfigError(f"{episode} is a group of {len(names)} episodes; name one: {', '.join(names[:3])}, ...")
        parent = recorded.reader.trajectory(names[0])
        if anew.step >= len(parent.steps):
            raise ConfigError(f"--from is {anew.step}; {parent.id} has {len(parent.steps)} steps, counted from 0.")
        played = run_supervised(_continued(recorded, parent, anew, place))
    typer.echo(f"recorded {_ending(parent)}")
    for trajectory in played:
        typer.echo(f"now      {_ending(trajectory)}")
    won = sum(trajectory.success for trajectory in played)
    typer.echo(f"{won} of {len(played)} succeed from step {anew.step} on; saved {place}")


async def _rescored(recorded: Recorded, names: Sequence[str], told: dict[str, object]) -> list[Rescored]:
    from agentrl.config import read_reward
    from agentrl.replay.models import given_for
    from agentrl.replay.rescore import rescore
    from agentrl.runs.rewards import make_terms

    reward = read_reward(recorded.host, told)
    async with AsyncExitStack() as stack:
        given = await given_for(recorded, reward, stack)
        return await rescore(recorded, names, make_terms(recorded.host, [reward], given, stack))


async def _continued(recorded: Recorded, parent: Trajectory, anew: Anew, out: Path) -> list[Trajectory]:
    from agentrl.replay.continuing import Going, claim, continue_from
    from agentrl.replay.source import Continued
    from agentrl.runs.policies import find_policy

    policy = find_policy(anew.policy, recorded.host, anew.engine)
    claim(out, recorded, Continued(recorded.world, str(recorded.folder), parent.id, anew.step, anew.policy))
    async with AsyncExitStack() as stack:
        player = await policy.open(stack, out)
        going = Going(anew.step, anew.times, anew.temperature, anew.max_tokens or policy.max_tokens, anew.seed)
        return await continue_from(recorded, parent, going, player, out)


def _ending(trajectory: Trajectory) -> str:
    from agentrl.outcomes import outcome_of

    told = (
        f"{trajectory.id}: {outcome_of(trajectory).value}, return {trajectory.reward:g}, {len(trajectory.steps)} steps"
    )
    return f"{told} ({trajectory.error})" if trajectory.error else told


def _regraded(recorded: Recorded, names: Sequence[str]) -> list[Rescored]:
    from agentrl.replay.rescore import regrade

    found, apart = run_supervised(regrade(recorded, names))
    for one in apart[:SHOWN]:
        typer.echo(f"{_rerun_line(one)}; left out")
    return found


def _write_test(path: Path, recorded: Recorded, one: Rerun, plugins: Sequence[str]) -> None:
    from agentrl.replay.case import Case, write_test

    if not one.same or one.now is None:
        raise ConfigError(f"{one.episode} does not repeat itself, so no test is written: it would fail. See above.")
    world = replace(recorded.world, plugins=(*recorded.world.plugins, *plugins))
    data = write_test(path, Case(one.episode, world, one.now))
    typer.echo(f"wrote {path} and {data}; run it with: pytest {path}")


def _rerun_line(one: Rerun) -> str:
    if one.recorded is None or one.now is None:
        return f"{one.episode}  not played: {one.error}"
    task, steps = one.recorded.task.id, len(one.recorded.actions)
    said = "the same"
    if one.divergence is not None:
        said = f"differs at step {one.divergence.step}: {one.divergence}"
    return f"{one.episode}  task {task}, {steps} steps: {said}"


def _verdict(one: Rerun) -> str:
    if one.now is None:
        return "not played"
    return "the same" if one.same else "different"


def _counted(verdicts: Sequence[str]) -> str:
    told = ", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).most_common())
    return f"{_episodes(len(verdicts))}: {told}" if verdicts else "no episode has ended there"


def _episodes(count: int) -> str:
    return f"{count} episode{'s' * (count != 1)}"


def _rescored_table(found: Sequence[Rescored]) -> list[str]:
    if not found:
        return ["no episode was scored"]
    changed = sorted((one for one in found if one.changed), key=lambda one: -abs(one.change))
    lines = [
        f"{one.episode}  task {one.task}: {one.before:g} to {one.after:g} ({one.change:+g})"
        + (f", {one.outcome_before} to {one.outcome_after}" * (one.outcome_before != one.outcome_after))
        for one in changed[:SHOWN]
    ]
    if len(changed) > SHOWN:
        lines.append(f"... and {len(changed) - SHOWN} more")
    before, after = (
        sum(values) / len(found) for values in zip(*((one.before, one.after) for one in found), strict=True)
    )
    flips = sum(one.outcome_before != one.outcome_after for one in found)
    lines.append(
        f"{len(changed)} of {len(found)} episodes change; mean return {before:.3f} to {after:.3f}; "
        f"{flips} outcomes differ"
    )
    return lines
