"""What `--dry-run` says before anything is loaded."""

import pytest

from agentrl.config import load_config
from agentrl.plugins import load_host
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.folder import RunFolder
from agentrl.runs.forecast import forecast, memory, model_shape
from agentrl.tiny import make_tiny

LAMPS = '''
from agentrl import Env, Task, call, tool


class Lamps(Env):
    """Lamps."""

    runs_in = "loop"

    def tasks(self, split):
        for number in range(5):
            yield Task(f"{split}-{number}", "lamps", seed=number)

    def reset(self, task):
        return "switch it on"

    @tool
    def switch(self) -> str:
        """Switch."""
        return "on"
'''


def recipe(tmp_path, model, *overrides):
    path = tmp_path / "recipe.toml"
    path.write_text(f'[environment]\nname = "lamps"\n[model]\n{model}\n')
    return load_config(path, overrides)


class Silent:
    def show(self, report):
        raise AssertionError("a forecast trains nothing")

    def note(self, text):
        raise AssertionError("a forecast returns its lines")


@pytest.fixture
def host(tmp_path):
    (tmp_path / "lamps.py").write_text(LAMPS)
    return load_host([str(tmp_path / "lamps.py")])


def test_the_parameters_of_a_model_on_disk_are_counted(tmp_path):
    from transformers import AutoModelForCausalLM

    folder = make_tiny(tmp_path / "model", ["some words to know"], hidden=128, layers=3, heads=4, context=64)
    config = recipe(tmp_path, f'path = "{folder}"')
    real = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folder).parameters())
    # Only the norms' few weights are not counted.
    assert 0 <= real - model_shape(config).parameters < 0.01 * real


def test_memory_follows_what_it_depends_on(tmp_path):
    def need(*overrides):
        config = recipe(tmp_path, 'name = "tiny"', *overrides)
        return memory(config, model_shape(config))

    base = need()
    assert need("rollout.concurrency=128")["cached keys"] == 2 * base["cached keys"]
    assert need("training.micro_batch_tokens=16384")["activations"] == 2 * base["activations"]
    assert need("model.lora_rank=4")["gradients and optimiser"] < base["gradients and optimiser"]
    # Weight, gradient and two moments of Adam, in float32.
    assert base["weights"] * 3 == base["gradients and optimiser"]
    half = need("model.lora_rank=4", 'model.dtype="bfloat16"')
    assert half["weights"] * 2 == base["weights"] and half["cached keys"] * 2 == base["cached keys"]


def test_the_forecast_says_what_would_run_and_writes_nothing(tmp_path, host):
    folder = RunFolder(tmp_path / "run")
    config = recipe(tmp_path, 'name = "tiny"', "training.batches=3", "training.minibatches=2", "evaluation.tasks=9")
    said = forecast(Blueprint(config, host, folder, Silent()))
    assert "would train  lamps with grpo on the engine transformers" in said
    assert "episodes     192 (3 batches x 8 tasks x 8), 6 updates" in said
    # The split has five.
    assert "evaluation   5 tasks of 'test', temperatures 1, 0" in said
    assert ": fits" in said and "(exists" not in said
    assert not folder.path.exists()
    folder.path.mkdir()
    folder.claim(config)
    assert "(exists: the run would go on)" in forecast(Blueprint(config, host, folder, Silent()))


def test_what_does_not_fit_is_said_with_what_to_lower(tmp_path, host):
    config = recipe(tmp_path, 'name = "tiny"', "rollout.concurrency=10000000")
    said = forecast(Blueprint(config, host, RunFolder(tmp_path / "run"), Silent()))
    assert "does NOT fit: lower micro_batch_tokens, concurrency or max_context" in said
