"""Recorded episodes played and scored again: what repeats itself, what is named where it does not, what is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from live_runs import LAMPS
from replay_folders import LINES, make_recipe, make_run, make_world

from agentrl import say
from agentrl.errors import ConfigError, InvalidDataError, StoreError
from agentrl.plugins import load_host
from agentrl.replay.case import Case, check_case, write_test
from agentrl.replay.rerun import rerun, rerun_one
from agentrl.replay.rescore import free_name, regrade, rescore, save_rescored
from agentrl.replay.script import Script, first_divergence, script_of
from agentrl.replay.source import Recorded, open_recorded
from agentrl.rewards.rules import Executable, StepCost
from agentrl.rollout.rewarding import JudgesFailed, RewardTerm
from agentrl.store.ledger import Ledger
from agentrl.types import Observation, Status, Task, Trajectory

OTHER_WORDS = LAMPS.replace('f"{color} is on"', 'f"{color} glows"')
OTHER_PAY = LAMPS.replace("return 0.5 * (", "return 0.25 * (")
OTHER_END = LAMPS.replace("return len(self.given) == 2", "return len(self.given) == 1")
BROKEN = LAMPS.replace("self.given.append(color)", "raise OSError('the fuse')")


@pytest.fixture
async def run(tmp_path: Path) -> tuple[Path, list[Trajectory]]:
    plugin = make_world(tmp_path / "world")
    make_recipe(tmp_path / "run", plugin)
    return tmp_path / "run", await make_run(tmp_path / "run", plugin)


@pytest.fixture
def recorded(run: tuple[Path, list[Trajectory]]) -> Iterator[Recorded]:
    with open_recorded(run[0]) as found:
        yield found


def in_another_world(recorded: Recorded, folder: Path, source: str) -> Recorded:
    return replace(recorded, host=load_host([str(make_world(folder, source))]))


async def test_every_way_to_end_is_played_again_as_it_was(recorded: Recorded) -> None:
    names = recorded.chosen([])
    found = await rerun(recorded, names)
    assert [one.episode for one in found] == names == [f"g000000-{member}" for member in LINES]
    assert all(one.same for one in found), found
    assert [one.now.status for one in found if one.now] == [Status.OK] * 2 + [Status.TRUNCATED] * 2 + [Status.OK]
    assert [one.now.outcome for one in found if one.now] == [
        one.recorded.outcome for one in found if one.recorded is not None
    ]


@pytest.mark.parametrize(
    ("source", "step", "what", "recorded_then", "now"),
    [
        (OTHER_WORDS, 1, "what is shown", "green is on", "green glows"),
        (OTHER_PAY, 0, "its reward", "0.5", "0.25"),
        (OTHER_END, 0, "its terminated", "False", "True"),
        (BROKEN, 0, "the episode", "going on", "the fuse"),
    ],
)
async def test_the_first_divergence_is_named_with_step_and_values(
    recorded: Recorded, tmp_path: Path, source: str, step: int, what: str, recorded_then: str, now: str
) -> None:
    (one,) = await rerun(in_another_world(recorded, tmp_path / "other", source), ["g000000-0"])
    assert one.divergence is not None and not one.same
    found = one.divergence
    assert (found.step, found.what) == (step, what)
    assert recorded_then in found.recorded and now in found.now


async def test_a_divergence_in_what_a_world_says_is_told_around_its_place(run: tuple[Path, list[Trajectory]]) -> None:
    script = script_of(run[1][1])
    shown = script.results[0].observation
    message = replace(shown.messages[0], content=shown.messages[0].content + "!")
    other = replace(script.results[0], observation=replace(shown, messages=(message, *shown.messages[1:])))
    found = first_divergence(script, replace(script, results=(other, *script.results[1:])))
    assert found is not None and found.step == 1 and found.now.endswith("!'")
    key = replace(script.results[0], observation=replace(shown, state_key="elsewhere"))
    found = first_divergence(script, replace(script, results=(key, *script.results[1:])))
    assert found is not None and (found.what, found.now) == ("state key", "'elsewhere'")
    assert first_divergence(script, script) is None


async def test_of_a_fault_only_what_came_before_it_counts(
    recorded: Recorded, run: tuple[Path, list[Trajectory]]
) -> None:
    fault = replace(run[1][0], steps=run[1][0].steps[:1], status=Status.ENVIRONMENT_ERROR, error="gone")
    assert (await rerun_one(recorded, fault)).same
    nothing = await rerun_one(recorded, replace(fault, steps=()))
    assert nothing.now is None and "it took no step (environment_error: gone)" in nothing.error


async def test_a_word_of_a_strategy_is_part_of_what_is_expected(
    recorded: Recorded, run: tuple[Path, list[Trajectory]]
) -> None:
    parent = run[1][0]
    left = parent.steps[1]
    said = replace(left.observation.messages[-1], role="user", name="", call_id="", content="look again")
    shown = Observation((*left.observation.messages, said), state_key=left.observation.state_key)
    fork = replace(parent, steps=(parent.steps[0], replace(left, observation=shown, told="look again")))
    assert (await rerun_one(recorded, fork)).same


async def test_a_test_of_an_episode_passes_and_fails_where_its_world_is_another(
    recorded: Recorded, tmp_path: Path
) -> None:
    (one,) = await rerun(recorded, ["g000000-2"])
    assert one.now is not None
    case = Case(one.episode, recorded.world, one.now)
    path = tmp_path / "tests" / "test_pink.py"
    data = write_test(path, case)
    told = json.loads(data.read_bytes())
    assert told["script"]["task"]["id"] == "train-0" and len(told["script"]["actions"]) == 2
    assert "check_case(Path(__file__).with_suffix" in path.read_text()
    compile(path.read_text(), str(path), "exec")
    with pytest.raises(StoreError, match="Choose another name"):
        write_test(path, case)


def test_a_case_is_checked_against_the_world_as_it_is(tmp_path: Path) -> None:
    plugin = make_world(tmp_path / "world")
    make_recipe(tmp_path / "run", plugin)
    asyncio.run(make_run(tmp_path / "run", plugin))
    with open_recorded(tmp_path / "run") as recorded:
        (one,) = asyncio.run(rerun(recorded, ["g000000-0"]))
        assert one.now is not None
        data = write_test(tmp_path / "test_it.py", Case(one.episode, recorded.world, one.now))
    check_case(data)
    other = make_world(tmp_path / "other", OTHER_PAY)
    told = json.loads(data.read_text())
    told["world"]["plugins"] = [str(other)]
    (tmp_path / "other.json").write_text(json.dumps(told))
    with pytest.raises(AssertionError, match=r"at step 0 its reward was 0.5 and is 0.25"):
        check_case(tmp_path / "other.json")
    (tmp_path / "torn.json").write_text(data.read_text()[:100])
    with pytest.raises(StoreError, match="is no recorded episode"):
        check_case(tmp_path / "torn.json")


async def test_another_reward_stands_in_for_the_recorded_ones(tmp_path: Path) -> None:
    plugin = make_world(tmp_path / "world")
    make_recipe(tmp_path / "run", plugin, [{"name": "step_cost", "weight": 0.1}])
    await make_run(tmp_path / "run", plugin, [RewardTerm("step_cost", StepCost(), 0.1)])
    with open_recorded(tmp_path / "run") as recorded:
        found = await rescore(recorded, recorded.chosen([]), [RewardTerm("executable", Executable(), 0.5)])
    by_name = {one.episode: one for one in found}
    # Member 0 has one lamp right (0.5) and both calls were fine; it had paid 0.1 for each of its steps.
    assert by_name["g000000-0"].before == pytest.approx(0.5 - 0.2)
    assert by_name["g000000-0"].after == pytest.approx(0.5 + 1.0)
    assert by_name["g000000-2"].rewards == pytest.approx((0.0, by_name["g000000-2"].after))
    assert all(one.changed for one in found) and len(found) == len(LINES)


class Silent:
    async def score(self, trajectory: Trajectory) -> list[float]:
        raise TimeoutError("the judge sleeps")


async def test_a_judge_that_is_down_is_an_error_and_writes_nothing(recorded: Recorded) -> None:
    before = sorted(path.name for path in recorded.folder.iterdir())
    with pytest.raises(JudgesFailed, match="reward model 'judge' failed 3 times: TimeoutError: the judge sleeps"):
        await rescore(recorded, recorded.chosen([]), [RewardTerm("judge", Silent())])
    assert sorted(path.name for path in recorded.folder.iterdir()) == before


async def test_the_environments_own_reward_is_taken_anew_where_the_episode_is_the_same(
    recorded: Recorded, tmp_path: Path
) -> None:
    found, apart = await regrade(in_another_world(recorded, tmp_path / "pay", OTHER_PAY), ["g000000-0", "g000000-4"])
    assert [(one.before, one.after) for one in found] == [(0.5, 0.25), (0.0, 0.0)] and not apart
    found, apart = await regrade(in_another_world(recorded, tmp_path / "words", OTHER_WORDS), ["g000000-0"])
    assert not found and apart[0].divergence is not None and apart[0].divergence.what == "what is shown"


async def test_results_go_to_a_file_of_their_own(recorded: Recorded) -> None:
    found = await rescore(recorded, ["g000000-0"], [RewardTerm("step_cost", StepCost(), 1.0)])
    first = free_name(recorded.folder)
    save_rescored(first, {"name": "step_cost"}, found)
    assert first.name == "rescored-001.json" and free_name(recorded.folder).name == "rescored-002.json"
    told = json.loads(first.read_text())
    assert told["episodes"][0]["rewards"] == [-0.5, -1.0] and told["reward"] == {"name": "step_cost"}
    with pytest.raises(StoreError, match="Choose another --out"):
        save_rescored(first, {}, found)


async def test_episodes_are_chosen_by_id_or_by_group(recorded: Recorded, tmp_path: Path) -> None:
    assert recorded.chosen(["g000000-3", "g000000-1", "g000000-3"]) == ["g000000-3", "g000000-1"]
    assert recorded.chosen(["g000000"]) == [f"g000000-{member}" for member in LINES]
    assert recorded.chosen([], 2) == ["g000000-0", "g000000-1"]
    with pytest.raises(StoreError, match=r"holds no episode and no group 'g7' .* Episodes there: g000000-0"):
        recorded.chosen(["g7"])


def test_a_folder_that_says_nothing_of_its_world_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path / "bare"):
        pass
    with (
        pytest.raises(ConfigError, match=r"neither config.toml \(a run\) nor evaluation.json"),
        open_recorded(tmp_path / "bare"),
    ):
        pass
    with pytest.raises(StoreError, match="is no run and no evaluation"), open_recorded(tmp_path):
        pass


def test_a_script_has_an_answer_to_every_action() -> None:
    with pytest.raises(InvalidDataError, match="1 actions, 0 results"):
        Script(Task("t", "lamps"), Observation(()), (say("x"),), (), ("",), Status.OK, "success")
