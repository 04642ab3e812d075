"""What goes wrong from outside gets a clear error or a counted, attributed record.

Nothing is lost by it, and the same command goes on when the cause is gone.
"""

import json
import re

import msgspec
import pytest
from live_runs import LAMPS, RECIPE, make_bench, rows

from agentrl.store.records import read_trajectories
from agentrl.training.metrics import read_metrics
from agentrl.view.archive import Archive

pytestmark = pytest.mark.slow

QUICK = ("evaluation.tasks=0", "training.batches=2")
NO_WARM_START = RECIPE.replace("[warm_start]\ndemonstrations = 200\nbatch = 8\nlearning_rate = 1e-2\n", "")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("bench"))


def refused(ended, *said, code=2):
    """One readable block with these words, no traceback, this exit code."""
    assert ended.code == code, ended.out + ended.err
    assert "Traceback" not in ended.err, ended.err
    for words in said:
        assert words in ended.err, ended.err


def test_a_recipe_that_is_not_there(bench):
    refused(bench.run("train", "nowhere.toml"), "there is no recipe file 'nowhere.toml'")
    refused(bench.run("train", "recip"), "no recipe is called 'recip'")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.learning_rat=1", ["has no key 'learning_rat'", "Did you mean 'learning_rate'"]),
        ('training.batches="many"', ["batches", "many"]),
        ("rollout.group_size=0", ["group_size"]),
        ('method="gigpoo"', ["Did you mean 'gigpo'"]),
        ('environment="lmaps"', ["Did you mean 'lamps'"]),
        ("environment.wattage=60", ["has no key 'wattage'"]),
        ('engine="vlm"', ["Did you mean 'vllm'"]),
        ("rollout.max_tokens=96", ["max_tokens = 96 leaves no room for a prompt in max_context = 96"]),
        ("model.heads=5", ["hidden = 32 with heads = 5"]),
        ('model.path="/nowhere"', ["both of path and name"]),
    ],
)
def test_a_key_or_a_name_that_cannot_be(bench, override, said):
    refused(bench.train(override), *said)
    assert not bench.run_folder.exists()


def test_a_method_with_anchors_where_states_have_no_names(tmp_path):
    nameless = LAMPS.replace('    def state_key(self):\n        return " ".join(self.given)\n', "")
    assert nameless != LAMPS
    ended = make_bench(tmp_path / "bench", plugin=nameless).train(*QUICK)
    refused(ended, "'gigpo' compares steps that were taken in equal states", "choose gigpo_similar")
    assert "warm-up" not in ended.out


def test_a_curriculum_over_one_category(bench):
    ended = bench.train('rollout.sampler="sec"', *QUICK)
    refused(ended, "all of the first", "are of the category 'train'", "by")
    assert not bench.run_folder.exists()


def test_a_model_that_is_not_there(bench):
    away = RECIPE.replace('name = "tiny"\nhidden = 32\nlayers = 1\nheads = 1', 'path = "smollm9"')
    (bench.folder / "away.toml").write_text(away)
    ended = bench.run("train", "away.toml", "--plugin", str(bench.plugin), "--run-folder", "away")
    refused(ended, "smollm9", code=ended.code)
    assert ended.code in (1, 2)


def test_a_tracker_whose_package_is_missing_names_what_installs_it(bench):
    plugin = bench.folder / "lacking.py"
    plugin.write_text(
        "from agentrl import Lazy, hookimpl\n\n@hookimpl\ndef agentrl_trackers():\n"
        '    return {"sky": Lazy("lacking_sky:Sky", ("lacking_sky",), "", "a tracker")}\n'
    )
    ended = bench.run(*bench.words('report.trackers=["sky"]', *QUICK), "--plugin", str(plugin))
    refused(ended, "lacking_sky", "sky", code=1)


def test_a_broken_plugin_is_named_with_its_line(bench):
    broken = bench.folder / "broken.py"
    broken.write_text("import agentrl\nimport a_module_that_is_nowhere\n")
    ended = bench.run(*bench.words(*QUICK), "--plugin", str(broken))
    refused(ended, "broken.py' cannot be imported", "No module named 'a_module_that_is_nowhere'", "broken.py:2", code=1)
    assert not bench.run_folder.exists()


def test_a_folder_that_belongs_to_something_else(bench, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    refused(bench.train(*QUICK, run_folder=tmp_path), "is not empty and is no run of agentrl")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    refused(bench.train(*QUICK, run_folder=tmp_path / "thesis.txt"), "thesis.txt")


def test_a_run_begun_with_another_recipe_or_in_use_or_with_torn_files(tmp_path):
    bench = make_bench(tmp_path / "bench")
    life = bench.start(*bench.words("training.batches=50", "evaluation.tasks=4", "training.checkpoint_every=1"))
    assert life.wait_until(lambda: bool(rows(bench.run_folder, "SELECT batch FROM head")))
    recipe = (bench.run_folder / "config.toml").read_text()
    # Its words go into the same out.txt: the other process is asked from a folder of its own.
    other = make_bench(tmp_path / "other")
    refused(other.train("training.batches=60", "evaluation.tasks=4", run_folder=bench.run_folder),
            "is in use by another run (process ", code=1)  # fmt: skip
    assert (bench.run_folder / "config.toml").read_text() == recipe, "the recipe of a living run was written over"
    life.kill()
    done = rows(bench.run_folder, "SELECT batch FROM head")[0][0]
    short = (f"training.batches={done + 1}", "evaluation.tasks=4", "training.checkpoint_every=1")
    refused(bench.train(*short, "seed=9"), "was begun with another recipe: seed was 3 and is 9")
    evaluation = bench.run_folder / "evaluations" / "update-000000-temperature-1.json"
    whole = evaluation.read_text()
    evaluation.write_text(whole[: len(whole) // 2])
    refused(bench.train(*short), "is not an evaluation", "Delete it to evaluate anew", code=1)
    evaluation.write_text(whole)
    config = bench.run_folder / "config.toml"
    config.write_text(recipe[:40])
    refused(bench.train(*short), str(config), code=1)
    config.write_text(recipe)
    with (bench.run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"batch": 7, "rew')
    ended = bench.train(*short)
    assert ended.code == 0, ended.err
    lines = read_metrics(bench.run_folder / "metrics.jsonl")
    assert [line["batch"] for line in lines] == list(range(1, len(lines) + 1))
    assert json.loads(evaluation.read_text()) == json.loads(whole)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (3_000, "the ledger in .* cannot be opened"),
        (110_000, "could not be written: .*File too large"),
        (240_000, "the ledger in .* cannot be written"),
    ],
)
def test_a_full_disk_is_told_and_the_same_command_goes_on_when_there_is_room(tmp_path, limit, said):
    """No file may have more bytes: refused while the ledger is made, weights are saved, rows are added."""
    bench = make_bench(tmp_path / "bench")
    words = bench.words("evaluation.tasks=0", "training.batches=6", "training.checkpoint_every=1")
    ended = bench.run(*words, file_size=limit)
    refused(ended, code=1)
    assert re.search(said, ended.err), ended.err
    assert limit < 150_000 or "batch 1/6" in ended.out
    again = bench.run(*words)
    assert again.code == 0, again.err
    assert limit < 150_000 or "resume " in again.out
    assert [line["batch"] for line in read_metrics(bench.run_folder / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert len(rows(bench.run_folder, "SELECT id FROM trajectories WHERE state = 'trained'")) == 6 * 8


def world(*replacements):
    text = LAMPS
    for old, new in replacements:
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


SWITCH = "        self.given.append(color)\n"
FAULTS = {
    "hangs": (
        world(
            ('    runs_in = "loop"\n', "    step_deadline = 0.2\n"), (SWITCH, "        import time; time.sleep(0.7)\n")
        ),
        "0.2 s",
    ),
    "raises": (world((SWITCH, "        raise OSError('the fuse is blown')\n")), "the fuse is blown"),
    "nan": (world(("        return 0.5 * (", "        return float('nan') * (")), "nan"),
}


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """Weights that can call a tool."""
    warm = make_bench(tmp_path_factory.mktemp("talker"))
    assert warm.run(*warm.words(verb="sft")).code == 0
    return warm.run_folder / "warm_start" / "model"


def trained_from(weights):
    preset = 'name = "tiny"\nhidden = 32\nlayers = 1\nheads = 1'
    assert preset in NO_WARM_START
    return NO_WARM_START.replace(preset, f'path = "{weights}"')


@pytest.mark.parametrize("name", FAULTS)
def test_an_environment_that_always_fails_stops_the_run_with_its_commonest_errors(tmp_path, talker, name):
    plugin, said = FAULTS[name]
    bench = make_bench(tmp_path / "bench", trained_from(talker), plugin)
    ended = bench.train("rollout.environments=4", "rollout.retries=1", *QUICK)
    refused(ended, said, code=1)
    assert re.search(r"\d+ of the last 64 attempts at an episode failed; allowed is a share of 0.5", ended.err)
    assert "reproduces the first" in ended.err
    failed = [t for t in read_trajectories(bench.run_folder / "payloads.bin") if not t.status.trains]
    assert failed and all(t.status.value == "environment_error" and said in t.error for t in failed)
    assert not rows(bench.run_folder, "SELECT id FROM trajectories WHERE state IN ('batched', 'trained')")


def test_a_hundred_megabytes_of_observation_are_cut_with_a_note_in_record_and_viewer(tmp_path, talker):
    loud = world(('return f"{color} is on"', 'return "on " * 35_000_000'))
    bench = make_bench(tmp_path / "bench", trained_from(talker), loud)
    ended = bench.train(*QUICK)
    assert ended.code == 0, ended.err
    cut = [t for t in read_trajectories(bench.run_folder / "payloads.bin") if t.steps[-1].action.tool_calls]
    assert cut and all(t.status.value == "truncated" for t in cut if not t.steps[-1].error)
    note = "[cut: 105,000,000 characters, the first 100,000 are shown]"
    assert note in cut[0].final.messages[-1].content
    assert (bench.run_folder / "payloads.bin").stat().st_size < 16 * 250_000
    shown = msgspec.json.encode(Archive(bench.run_folder).episode(cut[0].id)).decode()
    assert note in shown and len(shown) < 500_000


def test_an_environment_that_fails_now_and_then_is_retried_and_the_run_ends_well(tmp_path):
    """Every seventh episode raises once: counted in the record, never scored."""
    flaky = world(
        (
            "        self.given = []\n",
            "        self.given = []\n        Lamps.resets = getattr(Lamps, 'resets', 0) + 1\n",
        ),
        (
            SWITCH,
            SWITCH + "        if Lamps.resets % 7 == 0 and Lamps.resets > 420:\n            raise OSError('flicker')\n",
        ),
    )
    bench = make_bench(tmp_path / "bench", RECIPE, flaky)
    ended = bench.train("evaluation.tasks=0", "training.batches=4", "rollout.environments=1")
    assert ended.code == 0, ended.err
    stored = list(read_trajectories(bench.run_folder / "payloads.bin"))
    assert any(t.attempt > 0 for t in stored) and all(t.status.trains for t in stored)
    assert len(rows(bench.run_folder, "SELECT id FROM trajectories WHERE state = 'trained'")) == 4 * 8


def test_an_environment_without_tasks(tmp_path):
    empty = world(("            yield Task(", "            if False:\n                yield Task("))
    bench = make_bench(tmp_path / "bench", RECIPE, empty)
    refused(bench.train(*QUICK), "no tasks in its split 'train'")
    untested = world(("        for number in range(0 if split", "        for number in range(400 if split"))
    bare = make_bench(tmp_path / "bare", RECIPE, untested.replace('== "train" else 1', '!= "train" else 0'))
    refused(bare.train(), "no tasks in its split 'test'")
    assert not (bare.run_folder / "warm_start").exists(), "the warm start ran before the mistake was told"


DYING = '''
import numpy as np

from agentrl import hookimpl
from agentrl.errors import InfrastructureFault


def dying(model, max_context: int = 96, answers: int = 24):
    from agentrl.engines.transformers import TransformersEngine

    class Dying(TransformersEngine):
        """Answers a few times, then is dead for good."""

        left = answers

        async def generate(self, request):
            Dying.left -= 1
            if Dying.left < 0:
                raise InfrastructureFault("the engine is dead: connection refused")
            return await super().generate(request)

    return Dying(model, max_context=max_context)


@hookimpl
def agentrl_engines():
    return {"dying": dying}
'''


def test_an_engine_that_dies_stops_the_run_and_a_living_one_goes_on(tmp_path):
    bench = make_bench(tmp_path / "bench")
    (bench.folder / "dying.py").write_text(DYING)
    words = [
        *bench.words('engine.name="dying"', *QUICK),
        "rollout.environments=8",
        "rollout.retries=1",
        "--plugin",
        "dying.py",
    ]
    ended = bench.run(*words)
    refused(ended, "the engine is dead: connection refused", "attempts at an episode failed", code=1)
    recorded = {t.id: t for t in read_trajectories(bench.run_folder / "payloads.bin")}
    assert any(t.status.value == "infrastructure_error" for t in recorded.values())
    refused(bench.run(*words, "engine.answers=100000"), "was begun with another recipe: engine.answers was None")
    (bench.folder / "dying.py").write_text(DYING.replace("answers: int = 24", "answers: int = 100000"))
    healed = bench.run(*words)
    assert healed.code == 0, healed.err
    assert len(rows(bench.run_folder, "SELECT id FROM trajectories WHERE state = 'trained'")) == 16


def test_an_engine_that_gives_no_tokens_is_refused_before_anything_is_trained(tmp_path):
    bench = make_bench(tmp_path / "bench")
    ended = bench.train('engine={name = "openai", base_url = "http://127.0.0.1:9/v1", model = "m"}', *QUICK)
    refused(ended, "nothing can be trained on what it samples", code=1)


def test_an_evaluation_of_which_everything_failed_says_so_and_does_not_pass_for_zero(tmp_path, talker):
    """The held-out worlds are broken, the others are not: the run trains, and tells no success it did not see."""
    broken = world(
        (
            "        dice = random.Random(",
            "        assert task.split == 'train', 'no lamps here'\n        dice = random.Random(",
        )
    )
    bench = make_bench(tmp_path / "bench", trained_from(talker), broken)
    ended = bench.train("training.batches=1", "evaluation.tasks=3")
    assert ended.code == 0, ended.err
    assert re.search(r"before   greedy +nothing to score: all 3 attempts failed\. .*no lamps here", ended.out), (
        ended.out
    )
    assert "success 0.0% [" not in ended.out and "paired" not in ended.out
    assert "batch 1/1" in ended.out
