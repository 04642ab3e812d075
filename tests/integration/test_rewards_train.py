"""Reward models in real runs by the command line: what learns, what compares, what asks, and what a kill leaves."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from json_server import Answer, Call, Server, serve
from live_runs import LAMPS, RECIPE, Bench, make_bench, rows, same_weights
from safetensors.numpy import load_file

from agentrl.models import load_model, load_tokenizer
from agentrl.rendering import make_renderer
from agentrl.rewards.progress import ProgressReward
from agentrl.store.records import read_trajectories
from agentrl.training.metrics import read_metrics
from agentrl.types import Action, ToolCall, Trajectory

pytestmark = pytest.mark.slow

# One episode at a time as well: what a model reads in one pass with others differs in its last bits.
EXACT = ("rollout.concurrency=1", "rollout.environments=1", "engine.cache_tokens=0", "evaluation.tasks=0")
KEYDOOR = (
    RECIPE.replace('name = "lamps"', 'name = "keydoor"\nsize = 3\nhorizon = 16\nskill = 0.9')
    .replace("max_context = 96", "max_context = 256")
    .replace("demonstrations = 200", "demonstrations = 600")
)
LEARNED = """
[[rewards]]
name = "environment"
weight = -1.0
[[rewards]]
name = "executable"
weight = 0.5
[[rewards]]
name = "progress"
fit = { epochs = 20, batch = 4, learning_rate = 3e-3, train = "all" }
[[rewards]]
name = "process"
weight = 0.25
reward = "gain"
fit = { epochs = 4, learning_rate = 1e-2 }
"""
WEIGHTS = {"environment": -1.0, "executable": 0.5, "progress": 1.0, "process": 0.25}


def lines_of(run: Path) -> list[dict[str, float]]:
    return read_metrics(run / "metrics.jsonl")


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("batch-*"))[-1]


def played(run: Path) -> list[Trajectory]:
    return [t for t in read_trajectories(run / "payloads.bin") if t.status.trains]


@pytest.fixture(scope="module")
def keydoor(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = make_bench(tmp_path_factory.mktemp("keydoor"), KEYDOOR.replace('"gigpo"', '"step_return"') + LEARNED)
    ended = bench.train("evaluation.tasks=0")
    assert ended.code == 0, ended.err
    return bench


def test_rules_and_models_that_learn_train_keydoor_with_their_terms_apart(keydoor: Bench) -> None:
    lines = lines_of(keydoor.run_folder)
    assert [line["batch"] for line in lines] == [1, 2, 3, 4]
    for name in WEIGHTS:
        assert all(np.isfinite(line[f"score_{name}"]) for line in lines)
    for name in ("progress", "process"):
        for key in ("loss", "loss_before", "calibration_error"):
            assert all(np.isfinite(line[f"reward_{name}_{key}"]) for line in lines)
    assert lines[0]["reward_process_loss"] < lines[0]["reward_process_loss_before"] == pytest.approx(np.log(2))
    assert lines[0]["score_progress"] == 0.0 != lines[-1]["score_progress"], "it says nothing until it has learned"
    for trajectory in played(keydoor.run_folder):
        for step in trajectory.steps:
            terms = step.scores["environment"] + sum(w * step.scores[name] for name, w in WEIGHTS.items())
            assert step.reward == pytest.approx(terms)
    assert len({line["update"] for line in lines}) == 4


def sums_and_returns(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of the last batch: what the last checkpoint's estimator says of its trajectories in sum, and what they got."""

    async def ask(batch: list[Trajectory]) -> list[float]:
        model = ProgressReward(run / "warm_start" / "model", start=newest(run) / "rewards" / "progress")
        found = [float(sum(await model.score(trajectory))) for trajectory in batch]
        await model.close()
        return found

    last = {name for (name,) in rows(run, "SELECT id FROM trajectories WHERE batch = 4")}
    batch = [trajectory for trajectory in played(run) if trajectory.id in last]
    returns = [sum(step.scores["environment"] for step in trajectory.steps) for trajectory in batch]
    return np.array(asyncio.run(ask(batch))), np.array(returns)


def killed_once(bench: Bench, overrides: tuple[str, ...], batch: int) -> None:
    """Kill -9 when batch number `batch` is cut."""
    life = bench.start(*bench.words(*overrides))
    query = f"SELECT id FROM trajectories WHERE batch = {batch} LIMIT 1"
    assert life.wait_until(lambda: bool(rows(bench.run_folder, query))), life.out
    life.kill()


@pytest.mark.parametrize("method", ["gigpo", "steppo"])
def test_a_killed_run_ends_with_the_same_estimator_critic_and_weights(tmp_path: Path, method: str) -> None:
    recipe = RECIPE.replace('"gigpo"', f'"{method}"') + LEARNED + '[[rewards]]\nname = "branch_value"\nweight = 0.5\n'
    calm, torn = make_bench(tmp_path / "calm", recipe), make_bench(tmp_path / "torn", recipe)
    assert (ended := calm.train(*EXACT)).code == 0, ended.err
    for batch in (2, 4):
        killed_once(torn, EXACT, batch)
    assert (ended := torn.train(*EXACT)).code == 0, ended.err
    assert same_weights(calm.run_folder, torn.run_folder)
    for name in ("rewards/progress/state", "rewards/process/state", *(["critic"] if method == "steppo" else [])):
        one, two = (load_file(newest(bench.run_folder) / f"{name}.safetensors") for bench in (calm, torn))
        assert one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one), name
    told = [
        [
            {key: value for key, value in line.items() if key.startswith(("score_", "reward", "update_critic"))}
            for line in lines_of(bench.run_folder)
        ]
        for bench in (calm, torn)
    ]
    assert told[0] == told[1] and len(told[0]) == 4
    sums, returns = sums_and_returns(calm.run_folder)
    assert len(returns) == 8 and float(np.mean(returns**2)) > 0
    assert float(np.mean((sums - returns) ** 2)) < 0.5 * float(np.mean(returns**2)), "contributions sum to the return"
    settled = rows(torn.run_folder, "SELECT said FROM settlements ORDER BY grp")
    assert settled == rows(calm.run_folder, "SELECT said FROM settlements ORDER BY grp") and len(settled) == 8
    gains = [list(json.loads(said)["scores"]["branch_value"].values()) for (said,) in settled]
    # Without forks, the first steps carry the return minus the group's mean.
    assert all(sum(group) == pytest.approx(0, abs=1e-9) for group in gains) and any(any(group) for group in gains)
    if method == "steppo":
        assert all(np.isfinite(line["update_critic_loss"]) for line in told[0])
        assert told[0][-1]["update_critic_loss"] != told[0][0]["update_critic_loss"]


GOLD = LAMPS.replace(
    'yield Task(f"{split}-{number}", "lamps", seed=number)',
    'yield Task(f"{split}-{number}", "lamps", seed=number, data={"gold": random.Random(number).choice(COLORS)})',
)


def test_information_gain_is_what_the_policy_itself_says_of_the_right_answer(tmp_path: Path) -> None:
    asked = '[[rewards]]\nname = "information_gain"\nanswer = "gold"\ntool = "switch"\nargument = "color"\n'
    bench = make_bench(tmp_path / "bench", RECIPE.replace('"gigpo"', '"igpo"') + asked, GOLD)
    ended = bench.train("evaluation.tasks=0", "training.batches=2")
    assert ended.code == 0, ended.err
    assert all(np.isfinite(line["score_information_gain"]) for line in lines_of(bench.run_folder))
    weights = bench.run_folder / "warm_start" / "model"
    model, renderer = load_model(weights, dtype="float32", device="cpu"), make_renderer(load_tokenizer(weights), "auto")
    first = [t for t in played(bench.run_folder) if t.oldest_version == 0 and len(t.steps) == 2]
    assert len(first) == 8
    gains = []
    for trajectory in first:
        gold = trajectory.task.data["gold"]
        framed = renderer.action_tokens(Action(tool_calls=(ToolCall("switch", {"color": gold}),)))
        empty = renderer.action_tokens(Action(tool_calls=(ToolCall("switch", {"color": ""}),)))
        place = next(i for i, (a, b) in enumerate(zip(framed, empty, strict=False)) if a != b)
        known = []
        for step in trajectory.steps:
            prompt = trajectory.tokens_through(step)[: -len(step.tokens)]
            ids = torch.from_numpy(np.concatenate([prompt, framed]).astype(np.int64))[None]
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, len(prompt) + place - 1]
            known.append(float(torch.softmax(logits, -1)[framed[place]]))
        gains.append(known[1] - known[0])
        assert trajectory.steps[0].scores["information_gain"] == pytest.approx(gains[-1], abs=1e-5)
        assert trajectory.steps[1].scores["information_gain"] == 0.0
    assert np.ptp(gains) > 5e-5


class Grader:
    """A judge's server: grades a step by the calls in it, and refuses everything while it is down."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down

    async def __call__(self, call: Call) -> Answer:
        if self.down:
            return Answer(400, {"error": "the judge's model is not loaded"})
        record = json.loads(call.body["messages"][1]["content"])
        scores = [float(any("red" in str(used) for used in step["calls"])) for step in record["steps"]]
        choice = {"message": {"role": "assistant", "content": json.dumps({"scores": scores})}, "finish_reason": "stop"}
        return Answer(body={"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}})


@contextmanager
def serving(handler: Grader) -> Iterator[Server]:
    """`serve` in a thread: the run that asks is a process of its own, and the test waits for it."""
    started: threading.Event = threading.Event()
    found: list[Server] = []

    async def live() -> None:
        async with serve(handler) as server:
            found.append(server)
            ended = asyncio.Event()
            stop.append(lambda: loop.call_soon_threadsafe(ended.set))
            started.set()
            await ended.wait()

    stop: list = []
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(live()), name="grader")
    thread.start()
    assert started.wait(10)
    try:
        yield found[0]
    finally:
        stop[0]()
        thread.join()
        loop.close()


def judged(server: Server) -> str:
    return (
        f'[[rewards]]\nname = "judge"\nserver = {{ base_url = "{server.url}/v1", model = "wise" }}\n'
        'question = { rubric = "red is 1, all else 0" }\nprices = { prompt = 2.0, completion = 8.0 }\n'
    )


def test_a_judges_cost_is_in_every_line_and_in_the_summary_and_is_paid_once_across_a_kill(tmp_path: Path) -> None:
    with serving(Grader()) as server:
        bench = make_bench(tmp_path / "bench", RECIPE + judged(server))
        killed_once(bench, EXACT, 2)
        ended = bench.train(*EXACT)
        assert ended.code == 0, ended.err
        asked = len(server.calls)
    lines = lines_of(bench.run_folder)
    assert lines[-1]["reward_judge_replies_total"] == asked < 4 * 2 * 4, "equal episodes are not graded twice"
    assert lines[-1]["reward_judge_cost_total"] == pytest.approx(asked * (100 * 2 + 10 * 8) / 1e6)
    for line in lines:
        assert line["reward_judge_cost"] == pytest.approx(line["reward_judge_asked"] * 280 / 1e6)
        assert line["reward_judge_unreadable"] == line["reward_judge_silent"] == 0
    assert sum(line["reward_judge_known"] for line in lines) > 0
    assert f"judged   judge: {asked} replies · {100 * asked:,} prompt" in ended.out
    for trajectory in played(bench.run_folder):
        for step in trajectory.steps:
            graded = float(any("red" in str(call.arguments) for call in step.action.tool_calls))
            assert step.scores["judge"] == graded
            assert step.reward == step.scores["environment"] + graded


def test_a_run_whose_judge_is_down_says_so_scores_nothing_and_goes_on_when_it_is_up(tmp_path: Path) -> None:
    grader = Grader(down=True)
    with serving(grader) as server:
        bench = make_bench(tmp_path / "bench", RECIPE + judged(server))
        once = ("evaluation.tasks=0", "rollout.retries=0")
        ended = bench.train(*once)
        assert ended.code not in (0, None)
        said = ended.out + ended.err
        assert "'judge' failed 1 times" in said and "the judge's model is not loaded" in said
        assert "Traceback" not in said
        assert not rows(bench.run_folder, "SELECT id FROM trajectories WHERE state IN ('done', 'batched', 'trained')")
        assert not lines_of(bench.run_folder)
        grader.down = False
        ended = bench.train(*once)
        assert ended.code == 0, ended.err
    assert [line["batch"] for line in lines_of(bench.run_folder)] == [1, 2, 3, 4]
    trained = rows(bench.run_folder, "SELECT ordinal FROM groups WHERE state = 'trained'")
    assert sorted(ordinal for (ordinal,) in trained) == list(range(8)), "no task was lost"
