"""`agentrl replay` on a real run: it repeats itself, its tokens are proved, a reward is changed, a test is written."""

import json
import re
import subprocess
import sys

import pytest
from live_runs import LAMPS, make_bench

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    bench = make_bench(tmp_path_factory.mktemp("finished"))
    ended = bench.train("training.batches=2", "evaluation.tasks=0")
    assert ended.code == 0, ended.err
    return bench


def replay(bench, verb, *words):
    return bench.run("replay", verb, str(bench.run_folder), *words, "--plugin", str(bench.plugin))


def test_a_run_repeats_itself_and_its_tokens_are_proved(finished):
    again = replay(finished, "rerun")
    assert again.code == 0, again.err
    assert "16 episodes: 16 the same" in again.out
    proved = replay(finished, "rerender")
    assert proved.code == 0, proved.err
    assert "word: 16 episodes: 16 the same" in proved.out and "0 forks: the same" in proved.out
    other = replay(finished, "rerender", "--renderer", "word+tools", "--limit", "1")
    assert other.code == 1 and "word+tools: 1 episode: 1 different" in other.out
    assert re.search(r"first step 0, token 0 of its prompt: was \d+ '.*' after '' and is \d+ '", other.out)


def test_another_reward_changes_what_it_says_and_is_kept_apart(finished):
    before = {path.name for path in finished.run_folder.iterdir()}
    scored = replay(finished, "rescore", "--reward", "step_cost", "weight=0.25")
    assert scored.code == 0, scored.err
    assert "16 of 16 episodes change" in scored.out
    told = json.loads((finished.run_folder / "rescored-001.json").read_text())
    assert told["reward"] == {"name": "step_cost", "weight": 0.25} and len(told["episodes"]) == 16
    for one in told["episodes"]:
        assert one["after"] == pytest.approx(one["before"] - 0.25 * len(one["rewards"]))
    assert {path.name for path in finished.run_folder.iterdir()} - before == {"rescored-001.json"}
    server = "server={base_url='http://127.0.0.1:9/v1', model='m'}"
    silent = replay(finished, "rescore", "--reward", "judge", server, "question={rubric='Is it good?'}", "--limit", "1")
    assert silent.code == 1 and silent.err.startswith("error: reward model 'judge' failed 3 times: "), silent.err
    assert not (finished.run_folder / "rescored-002.json").exists()
    neither = replay(finished, "rescore")
    assert neither.code == 2 and "name one reward" in neither.err


def test_a_written_test_passes_until_the_world_is_another(finished, tmp_path):
    path = tmp_path / "test_lamp.py"
    wrote = replay(finished, "rerun", "g000001-0", "--as-test", str(path))
    assert wrote.code == 0, wrote.err
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
    good = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert good.returncode == 0 and "1 passed" in good.stdout, good.stdout
    try:
        finished.plugin.write_text(LAMPS.replace('f"{color} is on"', 'f"{color} glows"'))
        bad = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        differing = replay(finished, "rerun", "g000001-0")
    finally:
        finished.plugin.write_text(LAMPS)
    assert bad.returncode == 1 and "at step 1 what is shown was" in bad.stdout, bad.stdout
    assert differing.code == 1 and "differs at step 1: what is shown was" in differing.out


def test_a_run_goes_on_from_a_step_with_the_oracle_and_with_its_own_weights(finished):
    lost = [
        one["episode"]
        for one in json.loads((finished.run_folder / "rescored-001.json").read_text())["episodes"]
        if one["outcome_before"] != "success"
    ]
    assert lost
    won = replay(finished, "continue", lost[0], "--from", "0", "-m", "oracle")
    assert won.code == 0, won.err
    assert "1 of 1 succeed from step 0 on" in won.out and f"recorded {lost[0]}: " in won.out
    own = replay(finished, "continue", lost[0], "--from", "1", "-m", str(finished.run_folder), "--times", "3")
    assert own.code == 0, own.err
    place = finished.run_folder / "continued" / f"{lost[0]}@1"
    assert f"succeed from step 1 on; saved {place}" in own.out
    proved = finished.run("replay", "rerender", str(place), "--plugin", str(finished.plugin))
    assert proved.code == 0 and "word: 3 episodes: 3 the same" in proved.out, proved.out + proved.err
    assert "0 forks" in proved.out
    again = replay(finished, "continue", lost[0], "--from", "1", "-m", "oracle")
    assert again.code == 2 and "is not empty" in again.err


def test_an_evaluation_is_taken_up_like_a_run(tmp_path):
    bench = make_bench(tmp_path / "bench")
    folder = str(tmp_path / "oracle")
    played = bench.run("eval", "keydoor", "-m", "oracle", "--limit", "2", "--out", folder)
    assert played.code == 0, played.err
    again = bench.run("replay", "rerun", folder)
    assert again.code == 0 and "2 episodes: 2 the same" in again.out, again.out + again.err
    name = again.out.split()[0]
    chance = bench.run("replay", "continue", folder, name, "--from", "1", "-m", "random")
    assert chance.code == 0 and f"recorded {name}: success, return 1" in chance.out, chance.out + chance.err
    nobody = bench.run("replay", "rerender", folder)
    assert nobody.code == 2 and "'oracle' has no tokenizer here" in nobody.err
    told = bench.run("doctor", folder)
    assert told.code == 0 and "state    complete" in told.out and "2 success" in told.out
