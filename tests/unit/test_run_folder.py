"""A run folder is begun once and goes on with its own recipe; nothing of anyone else's is touched."""

import tomllib

import pytest

from agentrl.config import load_config
from agentrl.errors import ConfigError, StoreError
from agentrl.runs.folder import RunFolder

RECIPE = '[environment]\nname = "lamps"\nsize = 3\n[model]\nname = "tiny"\n'


@pytest.fixture
def config(tmp_path):
    def load(*overrides):
        path = tmp_path / "recipe.toml"
        path.write_text(RECIPE)
        return load_config(path, overrides)

    return load


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return RunFolder(path)


def test_the_resolved_recipe_is_written(config, folder):
    folder.claim(config())
    assert load_config(folder.recipe) == config()
    assert tomllib.loads(folder.recipe.read_text())["rollout"]["group_size"] == config().rollout.group_size
    assert [p.name for p in folder.path.iterdir()] == ["config.toml"]


def test_checking_writes_nothing(config, tmp_path):
    RunFolder(tmp_path / "new").check(config())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "override",
    [
        "training.batches=7",
        "training.checkpoint_every=3",
        "training.keep_checkpoints=5",
        "training.threads=1",
        "evaluation.tasks=3",
        "evaluation.temperatures=[0.5]",
        'report.trackers=["tensorboard"]',
    ],
)
def test_what_does_not_change_the_method_may_change(config, folder, override):
    folder.claim(config())
    folder.claim(config(override))
    assert load_config(folder.recipe) == config(override)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=1", "seed was 0 and is 1"),
        ("environment.size=4", "environment.size was 3 and is 4"),
        ("training.learning_rate=0.5", "training.learning_rate was 0.0001 and is 0.5"),
        ("rollout.group_size=4", "rollout.group_size was 8 and is 4"),
        ("environment.extra=true", "environment.extra was None and is True"),
        ("warm_start.demonstrations=5", "warm_start.demonstrations was None and is 5"),
    ],
)
def test_another_recipe_is_refused_with_the_keys_that_differ(config, folder, override, said):
    folder.claim(config())
    before = folder.recipe.read_text()
    with pytest.raises(ConfigError, match=f"begun with another recipe: .*{said}"):
        folder.claim(config(override))
    assert folder.recipe.read_text() == before


def test_a_folder_of_someone_else_is_refused(config, folder, tmp_path):
    (folder.path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty and is no run"):
        folder.check(config())
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="file is not"):
        RunFolder(tmp_path / "file").check(config())


def test_a_run_killed_before_its_recipe_was_written_begins_anew(config, folder):
    for name in ("config.partial", "ledger.lock", "ledger.sqlite", "payloads.bin"):
        (folder.path / name).write_text("")
    folder.claim(config())
    assert load_config(folder.recipe) == config()
    assert not (folder.path / "config.partial").exists()


def test_a_torn_recipe_says_so(config, folder):
    folder.recipe.write_text("[environment")
    with pytest.raises(StoreError, match=r"config.toml cannot be read: "):
        folder.check(config())


def test_evaluations_of_lost_weights_are_forgotten(folder):
    for update in (0, 3, 12):
        for temperature in (1.0, 0.0):
            path = folder.evaluation(update, temperature)
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}")
    folder.forget_evaluations_after(3)
    assert sorted(p.name for p in folder.path.glob("evaluations/*")) == [
        "update-000000-temperature-0.json",
        "update-000000-temperature-1.json",
        "update-000003-temperature-0.json",
        "update-000003-temperature-1.json",
    ]
