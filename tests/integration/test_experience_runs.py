"""A run whose weights stand still and whose experiences change, edited over HTTP."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from live_runs import make_bench

from agentrl.evaluation.result import load_result
from agentrl.models import load_tokenizer
from agentrl.store.records import read_trajectories
from agentrl.training.metrics import read_metrics

pytestmark = pytest.mark.slow

COLORS = ("red", "green", "blue")


@pytest.fixture
def editor():
    """An OpenAI-compatible server that adds one experience a question."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(json.loads(body["messages"][1]["content"]))
            known = len(asked[-1]["experiences"])
            edits = [{"do": "add", "text": f"switch {COLORS[known]}"}] if known < 3 else []
            reply = json.dumps({"edits": edits})
            answer = {
                "choices": [{"message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            }
            data = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_experiences_are_edited_shown_and_kept(tmp_path, editor):
    url, asked = editor
    bench = make_bench(tmp_path)
    with (bench.folder / "recipe.toml").open("a") as recipe:
        recipe.write(f'[experience]\nbase_url = "{url}"\nmodel = "editor"\n')
    words = ("method.name=grpo", "evaluation.tasks=4", "training.checkpoint_every=1", "rollout.max_context=160")
    ended = bench.train(*words, "training.batches=2")
    assert ended.code == 0, ended.err
    ended = bench.train(*words, "training.batches=3")
    assert ended.code == 0, ended.err
    assert "goes on at batch 2 of 3" in ended.out
    metrics = read_metrics(bench.run_folder / "metrics.jsonl")
    assert [line["batch"] for line in metrics] == [1, 2, 3]
    assert len(asked) == sum(line["update_experience_asked"] for line in metrics) > 0
    kept = json.loads((bench.run_folder / "checkpoints" / "batch-000003" / "experience.json").read_text())
    texts = [f"switch {color}" for color in COLORS][: len(kept["experiences"])]
    assert kept["experiences"] == texts and texts
    assert all(
        seen["experiences"] == [f"[{n}] {text}" for n, text in enumerate(texts[: len(seen["experiences"])], 1)]
        for seen in asked
    )
    # What was learned in a batch is read by the episodes of the next one.
    tokenizer = load_tokenizer(bench.run_folder / "warm_start" / "model")
    prompts = {}
    for trajectory in read_trajectories(bench.run_folder / "payloads.bin"):
        version = int(trajectory.steps[0].versions[0])
        prompts.setdefault(version, set()).add(tokenizer.decode(trajectory.steps[0].prompt).count("switch"))
    assert prompts[0] == {1}
    assert max(prompts) > 0 and all(count > 1 for version in prompts if version for count in prompts[version])
    # Whoever is evaluated as this run reads them too.
    asked_to = ("eval", str(bench.run_folder), "--limit", "2", "--out", "measured", "--plugin", str(bench.plugin))
    ended = bench.run(*asked_to)
    assert ended.code == 0, ended.err
    measured = list(read_trajectories(bench.folder / "measured" / "payloads.bin"))
    assert {tokenizer.decode(t.steps[0].prompt).count("switch") for t in measured} == {1 + len(texts)}
    assert load_result(bench.folder / "measured").manifest.identity["experience"]
