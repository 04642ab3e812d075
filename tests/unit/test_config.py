"""Recipes: what they may say, and the exact words for what they may not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl import builtin, toml
from agentrl.cli.settings import keys_of
from agentrl.config import check_parts, dump_toml, find_recipe, load_config, recipes
from agentrl.errors import ConfigError, MissingDependencyError, UnknownNameError
from agentrl.plugins import Host, Lazy, load_host
from agentrl.remote.environment import RemoteEnvironment
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.folder import RunFolder
from agentrl.sections import Config, Part

SMALL = """
[environment]
name = "desk"
size = 4

[model]
name = "tiny"
"""
FULL = """
seed = 3
plugins = ["my_plugin.py"]

[environment]
name = "desk"
layout = {rooms = [1, 2], "odd key" = "a \\"quoted\\" \\u007f word"}

[model]
path = "smollm2-135m"
dtype = "bfloat16"
lora_rank = 16

[rollout]
context = {name = "window", size = 4}
strategy = "independent"
max_steps = 6

[method]
name = "gigpo"
gamma = 0.9

[[rewards]]
name = "judge"
weight = 0.5

[[rewards]]
name = "length"

[warm_start]
demonstrations = 10

[evaluation]
temperatures = [0.5]

[report]
trackers = ["tensorboard", {name = "wandb", project = "desk"}]
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "recipe.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def refused(path: Path, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value).removeprefix(str(path))


def test_a_small_recipe_takes_the_defaults(write: Any) -> None:
    config = load_config(write(SMALL))
    assert config.name == "recipe"
    assert (config.environment.name, config.environment.options) == ("desk", {"size": 4})
    assert (config.engine.name, config.method.name) == ("transformers", "grpo")
    assert config.evaluation.temperatures == (1.0, 0.0)
    assert config.warm_start is None


def test_a_config_cannot_be_changed(write: Any) -> None:
    config = load_config(write(SMALL))
    with pytest.raises(ValueError, match="frozen"):
        config.rollout.group_size = 3  # type: ignore[misc]


@pytest.mark.parametrize("text", [SMALL, FULL])
def test_what_is_written_reads_back_as_the_same_config(write: Any, text: str) -> None:
    config = load_config(write(text))
    assert load_config(write(dump_toml(config), "resolved.toml")) == config


def test_parts_are_named_with_their_place_and_kind(write: Any) -> None:
    parts = {(place, kind, part.name) for place, kind, part in load_config(write(FULL)).parts()}
    assert ("[rollout] context", "context_policies", "window") in parts
    assert ("[[rewards]]", "reward_models", "length") in parts
    assert ("[report] trackers", "trackers", "wandb") in parts
    assert len(parts) == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SMALL + "[training]\nlearning_rat = 1.0",
            "[training] has no key 'learning_rat'. Did you mean 'learning_rate'? Allowed:",
        ),
        ("naem = 1\n" + SMALL, "the top level has no key 'naem'. Did you mean 'name'? Allowed: engine, environment,"),
        (SMALL + "[trainning]\nbatches = 1", "the top level has no key 'trainning'. Did you mean 'training'?"),
        (SMALL + "[training]\nbatches = 'many'", '[training] batches = "many": must be a whole number.'),
        (SMALL + "[training]\nbatches = 2.5", "[training] batches = 2.5: must be a whole number."),
        (SMALL + "[training]\nbatches = 0", "[training] batches = 0: must be greater than or equal to 1."),
        (SMALL + "[training]\nlearning_rate = nan", "[training] learning_rate = NaN: must be a finite number."),
        ("seed = true\n" + SMALL, "seed = true: must be a whole number."),
        (SMALL + "dtype = 'fp8'", "[model] dtype = \"fp8\": must be one of 'float32' or 'bfloat16'."),
        (
            SMALL + "[rollout]\ncontext = 4",
            "[rollout] context = 4: must be a table {...} or, for a part, its name in quotes.",
        ),
        (SMALL + "[evaluation]\ntemperatures = 1.0", "[evaluation] temperatures = 1.0: must be a list [...]."),
        (SMALL + "[report]\ntrackers = 'wandb'", '[report] trackers = "wandb": must be a list [...].'),
        (SMALL + "[[rewards]]\nnaem = 'judge'", "[rewards] needs a value for '0.name'."),
        ("[model]\nname = 'tiny'", "[environment] is missing; give it a name and options."),
        ("[environment]\nname = 'desk'", "[model] is missing; give it the keys it needs."),
        ("[environment]\nsize = 4\n[model]\nname = 'tiny'", "[environment] needs a value for 'name'."),
        ("[environment\n", "is not TOML: Expected ']' at the end of a table declaration (at line 1, column 13)."),
        (SMALL + "path = 'x'", '[model] has both of path and name; give path = "..." or name = "tiny".'),
        ("environment = 'desk'\n[model]", '[model] has neither of path and name; give path = "..." or name = "tiny".'),
        (
            SMALL + "hidden = 63",
            "[model] hidden = 63 with heads = 2: hidden must be a multiple of heads, and hidden / heads even.",
        ),
        ("environment = 'desk'\n[model]\npath = 'x'\nlayers = 3", '[model] layers belong to name = "tiny";'),
        (
            SMALL + "[rollout]\nminimum_group = 9",
            "[rollout] minimum_group = 9 is above group_size = 8: every group would be dropped.",
        ),
        (
            SMALL + "[rollout]\nmax_tokens = 2048",
            "[rollout] max_tokens = 2048 leaves no room for a prompt in max_context = 2048; it must be below.",
        ),
        (
            SMALL + "[training]\nminibatches = 9",
            "[training] minibatches = 9 is above [rollout] tasks_per_batch = 8: a group is never split",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(write: Any, text: str, message: str) -> None:
    said = refused(write(text))
    assert said.removeprefix(": ").removeprefix(" ").startswith(message)
    assert "\n" not in said


def test_all_problems_are_told_at_once(write: Any) -> None:
    said = refused(write(SMALL + "[training]\nbatches = 'x'\nbatch = 1\n[rollout]\ntemperature = 0\n"))
    first, *problems = said.splitlines()
    assert first == " has 3 problems:"
    assert [problem.split("]")[0].strip() for problem in problems] == ["[rollout", "[training", "[training"]


def test_overrides_are_toml_and_a_bare_word_is_text(write: Any) -> None:
    path = write(FULL)
    overrides = [
        "seed=7",
        "name=2026-01-01",
        "model.path=runs/a-b",
        "rollout.context.size=8",
        "rollout.strategy.depth=2",
        "engine.threads=1",
        "rewards.1.weight=2",
        "evaluation.temperatures=[0.0]",
        "environment.layout={rooms = []}",
    ]
    config = load_config(path, overrides)
    assert (config.seed, config.name, config.model.path) == (7, "2026-01-01", "runs/a-b")
    assert config.rollout.context == Part.model_validate({"name": "window", "size": 8})
    assert config.rollout.strategy.options == {"depth": 2}
    assert (config.engine.name, config.engine.options) == ("transformers", {"threads": 1})
    assert [reward.weight for reward in config.rewards] == [0.5, 2.0]
    assert config.evaluation.temperatures == (0.0,)
    assert config.environment.options == {"layout": {"rooms": []}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batches", "'batches' is not an override; write key.sub=value, such as training.batches=20."),
        (".x=1", "'.x=1' is not an override;"),
        ("seed.x=1", "'seed.x=1': seed is 3, which has no keys."),
        ("rewards.5.weight=1", "'rewards.5.weight=1': '5' is no place in a list of 2; places count from 0."),
        ("seed=[1", "'[1' is neither a TOML value nor a bare word; check its brackets and quotes."),
    ],
)
def test_a_wrong_override_is_refused(write: Any, override: str, message: str) -> None:
    assert refused(write(FULL), [override]).startswith(message)


def test_a_wrong_key_in_an_override_names_the_overrides(write: Any) -> None:
    said = refused(write(SMALL), ["training.batchs=1"])
    assert said.startswith(" with training.batchs=1: [training] has no key 'batchs'. Did you mean 'batches'?")


def test_a_recipe_is_found_by_name_or_path(write: Any, tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "quickstart-test.toml").write_text(SMALL)
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert load_config("quickstart-test").name == "quickstart-test"
        assert "quickstart-test" in recipes()
        with pytest.raises(
            UnknownNameError, match=r"no recipe is called 'quikstart-test'. Did you mean 'quickstart-test'\?"
        ):
            find_recipe("quikstart-test")
        with pytest.raises(ConfigError, match=r"there is no recipe file 'other/quickstart-tst.toml' .* Did you mean"):
            find_recipe("other/quickstart-tst.toml")
    finally:
        os.chdir(before)


def engine(model: object, *, max_batch: int = 8) -> int:
    return max_batch


def test_parts_are_held_against_the_plugins(write: Any) -> None:
    hooks = {name: hook for name, hook in vars(builtin).items() if name.startswith("agentrl_")}
    hooks["agentrl_engines"] = lambda: {"transformers": engine}
    hooks["agentrl_environments"] = lambda: {"desk": lambda *, size=1: size}
    host = Host()
    host.register(SimpleNamespace(**hooks))
    check_parts(load_config(write(SMALL)), host)
    config = load_config(write(SMALL), ["environment.sise=4", "method=gigpoo", "engine.max_batch=many"])
    with pytest.raises(ConfigError) as caught:
        check_parts(config, host, file="r.toml")
    first, *lines = str(caught.value).splitlines()
    assert first == "r.toml has 3 problems:"
    assert lines[0] == "  [environment] has no key 'sise'. Did you mean 'size'? Allowed: runs_in, size."
    assert '[engine] max_batch = "many": must be a whole number.' in lines[1]
    assert lines[2].startswith("  [method]: no method is called 'gigpoo'. Did you mean 'gigpo'?")


def test_a_missing_package_is_not_a_problem_of_the_recipe(write: Any) -> None:
    host = Host()
    lazy = Lazy("nowhere:Desk", requires=("no_such_library",))
    host.register(SimpleNamespace(agentrl_environments=lambda: {"desk": lazy}))
    with pytest.raises(MissingDependencyError, match="Run: pip install no_such_library"):
        check_parts(load_config(write(SMALL)), host)


def test_every_key_is_explained() -> None:
    keys = keys_of()
    assert all(key.description for key in keys)
    (rate,) = keys_of("training.learning_rate")
    assert (rate.type, rate.default, rate.allowed) == ("number", "0.0001", "> 0")
    (dtype,) = keys_of("model.dtype")
    assert dtype.allowed == 'one of "float32", "bfloat16"'
    assert {key.name for key in keys_of("warm_start")} >= {"warm_start", "warm_start.epochs"}
    with pytest.raises(UnknownNameError, match=r"Did you mean 'training\.learning_rate'"):
        keys_of("training.lerning_rate")


def test_every_key_of_the_schema_is_in_the_dump() -> None:
    config = Config.model_validate_json(
        '{"environment": "desk", "model": {"name": "tiny"}, "warm_start": {}, "experience": {}}'
    )
    text = dump_toml(config)
    unset = {
        "environment.runs_in",
        "model.path",
        "model.teacher",
        "rollout.max_steps",
        "rewards",
        "warm_start.recorded",
        "experience.base_url",
    }
    for key in keys_of():
        if key.name not in unset:
            assert key.name.rpartition(".")[2] in text, key.name


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), TEXT)
INLINE = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(TEXT, INLINE | st.lists(st.dictionaries(TEXT, INLINE, max_size=3), min_size=1, max_size=2)))
def test_any_table_survives_being_written(table: dict[str, Any]) -> None:
    import tomllib

    assert tomllib.loads(toml.dump(table)) == table


@settings(max_examples=50, deadline=None)
@given(INLINE)
def test_any_written_value_can_be_given_on_the_command_line(value: Any) -> None:
    assert toml.parse_value(toml.quoted(value)) == value


@pytest.mark.parametrize("runs_in", ["loop", "thread", "process"])
def test_a_recipe_says_where_its_environment_runs(tmp_path: Path, runs_in: str) -> None:
    recipe = tmp_path / "keydoor.toml"
    recipe.write_text(f'[environment]\nname = "keydoor"\nsize = 5\nruns_in = "{runs_in}"\n[model]\nname = "tiny"\n')
    config = load_config(recipe)
    assert config.environment.options == {"size": 5} and config.environment.runs_in == runs_in
    world = Blueprint(config, load_host(), RunFolder(tmp_path / "run"), SimpleNamespace()).environment()
    assert isinstance(world, RemoteEnvironment) == (runs_in == "process")
    assert getattr(world, "author").runs_in == runs_in  # noqa: B009


def test_a_place_that_there_is_not_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "keydoor.toml"
    recipe.write_text('[environment]\nname = "keydoor"\nruns_in = "cloud"\n[model]\nname = "tiny"\n')
    with pytest.raises(ConfigError, match=r"environment\.runs_in|runs_in"):
        load_config(recipe)
