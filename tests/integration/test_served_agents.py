"""Agents that speak HTTP, with real processes and a real model: trained by a run, and served by one that is killed."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx
import numpy as np
import pytest
from live_runs import RECIPE, Bench, Running, make_bench, rows

from agentrl.evaluation.result import load_result
from agentrl.store.reader import FolderReader
from agentrl.training.metrics import read_metrics
from agentrl.view.collection import Collection

pytestmark = pytest.mark.slow

AGENT = '''
"""Lamps to switch on, by an agent that has nothing but an address."""

import json
import random

import httpx

from agentrl import AgentEnv, Ending, Task, call

COLORS = ("red", "green", "blue")
SWITCH = {"type": "function", "function": {"name": "switch", "parameters": {
    "type": "object", "properties": {"color": {"enum": COLORS}}, "required": ["color"]}}}


class Lamps(AgentEnv):
    max_steps = 2

    def tasks(self, split):
        for number in range(0 if split == "train" else 1, 200, 2):
            yield Task(f"{split}-{number}", "lamps", seed=number)

    async def play(self, task, base_url):
        dice = random.Random(task.seed)
        wanted = [dice.choice(COLORS) for _ in range(2)]
        said, rewards = [{"role": "user", "content": f"switch on {wanted[0]} then {wanted[1]}"}], []
        async with httpx.AsyncClient(verify=False, timeout=60.0) as client:
            for color in wanted:
                body = {"messages": said, "tools": [SWITCH], "temperature": 0.0}
                answer = (await client.post(f"{base_url}/chat/completions", json=body)).json()
                message = answer["choices"][0]["message"]
                calls = message.get("tool_calls", [])
                right = bool(calls) and json.loads(calls[0]["function"]["arguments"]) == {"color": color}
                rewards.append(0.5 * right)
                said += [message, {"role": "user", "content": "on" if right else "then"}]
        return Ending(0.0, rewards, {"success": float(sum(rewards) == 1.0)})

    def demonstrate(self, task, rng):
        for _ in range(2):
            yield call("switch", color=rng.choice(COLORS))
'''


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Two batches of an agent's own requests."""
    bench = make_bench(tmp_path_factory.mktemp("trained"), RECIPE, AGENT)
    warm = ("warm_start.demonstrations=100", "warm_start.epochs=3", "evaluation.tasks=2")
    ended = bench.train("method.name=grpo", "training.batches=2", *warm)
    assert ended.code == 0, ended.err
    return bench


def serve(bench: Bench, run: Path, folder: Path) -> tuple[Running, str]:
    (bench.folder / "out.txt").unlink(missing_ok=True)  # what an earlier server said
    running = bench.start("serve", str(run), "--port", "0", "--out", str(folder), "--max-tokens", "8")
    assert running.wait_until(lambda: "records" in running.out), running.wait().err
    found = re.search(r"serving +(\S+)/v1", running.out)
    assert found is not None
    return running, found[1]


def ask(url: str, session: str, *said: object) -> httpx.Response:
    messages = [{"role": "user", "content": one} if isinstance(one, str) else one for one in said]
    body = {"messages": messages, "seed": 1, "logprobs": True}
    return httpx.post(f"{url}/v1/s/{session}/chat/completions", json=body, timeout=60.0)


def test_what_an_agent_asks_over_http_is_what_is_trained_on(trained: Bench) -> None:
    lines = read_metrics(trained.run_folder / "metrics.jsonl")
    assert [line["batch"] for line in lines] == [1, 2] and any(line["updated"] for line in lines)
    assert all(line["trajectories"] == 8 and line["mismatch"] < 1e-5 for line in lines if line["updated"])
    assert len(rows(trained.run_folder, "SELECT id FROM trajectories WHERE state = 'trained'")) == 16
    with FolderReader(trained.run_folder) as reader:
        found = [reader.trajectory(row.id) for row in reader.rows("state = 'trained'")]
    assert all(len(t.steps) == 2 and t.forks == 0 and t.steps[1].context == t.steps[0].id for t in found)
    assert {step.reward for t in found for step in t.steps} <= {0.0, 0.5}
    # The recipe samples at temperature 1, whatever the agent asks for.
    assert len({t.steps[0].tokens.tobytes() for t in found}) > 1
    assert all(np.all(step.logprobs < 0) for t in found for step in t.steps)


def test_a_server_that_is_killed_goes_on_in_its_folder(trained: Bench, tmp_path: Path) -> None:
    folder, one, two = tmp_path / "served", make_bench(tmp_path / "one"), make_bench(tmp_path / "two")
    first, url = serve(one, trained.run_folder, folder)
    given = ask(url, "cut", "switch on red then blue").json()["choices"][0]["logprobs"]["content"]
    answer = ask(url, "kept", "switch on red then blue").json()["choices"][0]["message"]
    assert ask(url, "kept", "switch on red then blue", answer, "then").status_code == 200
    assert httpx.post(f"{url}/v1/sessions/kept/finish", json={"success": True}).json()["answers"] == 2
    refused = two.run("serve", str(trained.run_folder), "--port", "0", "--out", str(folder), "--max-tokens", "8")
    assert refused.code == 1 and "in use by another" in refused.err
    first.kill()
    second, url = serve(one, trained.run_folder, folder)
    assert "1 sessions were open when the last server was killed" in second.out
    assert ask(url, "open", "switch on red then blue").status_code == 200
    second.send(signal.SIGINT)
    ended = second.wait()
    assert ended.code == 0 and "3 sessions" in ended.out and "Traceback" not in ended.err, ended.err
    result = load_result(folder)
    told = {attempt.episode: (attempt.status, attempt.success, attempt.steps) for attempt in result.attempts}
    assert told == {
        "kept-0": ("ok", True, 2),
        "cut-0": ("infrastructure_error", False, 1),
        "open-0": ("environment_error", False, 1),
    }
    assert result.faults() == 2 and result.scores() == {"kept": [1.0]}
    with Collection([folder]) as shown:
        assert shown.overview().episodes == 3
        assert shown.episode("kept-0", "0").steps[1].tokens[0].text
        assert shown.episode("cut-0", "0").steps[0].tokens[0].text
    with FolderReader(folder) as reader:
        (cut,) = reader.trajectory("cut-0").steps
    # Every token that a client was given is on the disk, though its server was killed.
    assert cut.logprobs.tolist() == [pytest.approx(one["logprob"]) for one in given]
    exported = two.run("export", str(folder), str(tmp_path / "out"), "--trajectories", "parquet")
    assert exported.code == 0, exported.err
