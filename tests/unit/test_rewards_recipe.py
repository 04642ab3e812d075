"""Reward models from a recipe: what the host offers them, how terms are named, what is logged of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import make_groups, make_trajectory
from fakes_rollout import Engine, Renderer

from agentrl import protocols
from agentrl.config import check_parts, load_config
from agentrl.errors import ConfigError
from agentrl.plugins import Host, load_host
from agentrl.rewards.information_gain import InformationGain
from agentrl.rewards.judge import Judge
from agentrl.rewards.rules import Executable, Overlong
from agentrl.rollout.accounting import CollectorStatistics
from agentrl.rollout.rewarding import RewardTerm
from agentrl.runs.blueprint import Blueprint
from agentrl.runs.folder import RunFolder
from agentrl.runs.policy import Policy
from agentrl.runs.rewards import RewardModels, open_rewards
from agentrl.runs.summary import shape_metrics
from agentrl.sections import Config
from agentrl.types import Group, Trajectory

START = '[environment]\nname = "keydoor"\n[model]\nname = "tiny"\n'
TERMS = """
[[rewards]]
name = "executable"
weight = 0.5
[[rewards]]
name = "overlong"
limit = 64
buffer = 16
[[rewards]]
name = "executable"
weight = -1.0
[[rewards]]
name = "information_gain"
answer = "gold"
[[rewards]]
name = "judge"
server = { base_url = "http://127.0.0.1:1/v1", model = "wise" }
question = { rubric = "right is 1", per = "episode", show = ["gold"] }
prices = { prompt = 1.5 }
"""


@dataclass
class Closing:
    closed: list[str] = field(default_factory=list)

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        return [0.0] * len(trajectory.steps)

    async def close(self) -> None:
        self.closed.append("closed")


@pytest.fixture(scope="module")
def host() -> Host:
    return load_host()


def read(folder: Path, rewards: str) -> Config:
    (folder / "recipe.toml").write_text(START + rewards)
    return load_config(folder / "recipe.toml")


def engine() -> protocols.Engine:
    return Engine()  # type: ignore[return-value]


def policy(folder: Path) -> Policy:
    """As much of one as a reward model is given."""
    return SimpleNamespace(renderer=Renderer(), model_path=folder, device="cpu")  # type: ignore[return-value]


async def test_a_recipes_terms_are_built_with_what_the_run_gives_and_numbered(tmp_path: Path, host: Host) -> None:
    config = read(tmp_path, TERMS)
    check_parts(config, host)
    blueprint = Blueprint(config, host, RunFolder(tmp_path), SimpleNamespace())
    async with AsyncExitStack() as stack:
        terms = open_rewards(blueprint, engine(), policy(tmp_path), stack).terms
        assert [(term.name, term.weight) for term in terms] == [
            ("executable", 0.5),
            ("overlong", 1.0),
            ("executable_2", -1.0),
            ("information_gain", 1.0),
            ("judge", 1.0),
        ]
        assert [type(term.model) for term in terms] == [Executable, Overlong, Executable, InformationGain, Judge]
        assert terms[1].model == Overlong(limit=64, buffer=16)


async def test_a_model_that_can_be_closed_is_closed_with_the_run(tmp_path: Path) -> None:
    made = Closing()
    host = load_host()
    host.register(SimpleNamespace(agentrl_reward_models=lambda: {"closing": lambda: made}), "closing")
    blueprint = Blueprint(
        read(tmp_path, '[[rewards]]\nname = "closing"\n'), host, RunFolder(tmp_path), SimpleNamespace()
    )
    async with AsyncExitStack() as stack:
        open_rewards(blueprint, engine(), policy(tmp_path), stack)
        assert made.closed == []
    assert made.closed == ["closed"]


@pytest.mark.parametrize(
    ("rewards", "told"),
    [
        ('name = "overlong"\nlimit = 64', "needs a value for 'buffer'"),
        ('name = "judge"\nserver = { base_url = "u", model = "m" }\nquestion = { rubrik = "r" }', "rubrik"),
        ('name = "progress"\nfit = { epoch = 2 }', "Did you mean 'epochs'"),
        ('name = "executble"', "Did you mean 'executable'"),
    ],
)
def test_what_a_term_cannot_take_is_told_before_the_run(tmp_path: Path, host: Host, rewards: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_parts(read(tmp_path, f"[[rewards]]\n{rewards}\n"), host)


def test_the_mean_of_each_score_is_logged_over_the_steps_that_have_it() -> None:
    one, two = make_trajectory("a", "g", [0.0, 1.0]), make_trajectory("b", "g", [0.0])
    first = replace(one.steps[0], scores={"kind": 1.0})
    last = replace(one.steps[1], scores={"kind": 0.5, "success": 1.0})
    one = replace(one, steps=(first, last))
    # A branch that shares the first step: it counts once.
    two = replace(two, steps=(first, replace(two.steps[0], scores={"kind": 0.0, "success": 0.0})))
    found = shape_metrics(make_groups(g=[one, two]), CollectorStatistics())
    assert found["score_kind"] == pytest.approx(0.5) and found["score_success"] == pytest.approx(0.5)
    plain = shape_metrics(make_groups(g=[make_trajectory("c", "g", [1.0])]), CollectorStatistics())
    assert not [name for name in plain if name.startswith("score_")]


@dataclass
class Learning:
    """Counts what is asked of it; its memory is the number of fits."""

    trains: bool = True
    fits: int = 0

    async def score(self, trajectory: Trajectory) -> Sequence[float]:
        return [float(self.fits)] * len(trajectory.steps)

    def fit(self, groups: Sequence[Group]) -> dict[str, float]:
        self.fits += 1
        return {"loss": 1.0 / self.fits, "groups": float(len(groups))}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "fits").write_text(str(self.fits))

    def load(self, folder: Path) -> None:
        self.fits = int((folder / "fits").read_text())

    def take_metrics(self) -> dict[str, float]:
        return {"asked": 3.0}

    def account(self) -> str:
        return "3 asked"


def test_what_learns_is_fitted_saved_and_restored_under_its_terms_name_and_what_is_frozen_is_not(
    tmp_path: Path,
) -> None:
    def terms() -> list[RewardTerm]:
        return [
            RewardTerm("one", Learning()),
            RewardTerm("still", Learning(trains=False)),
            RewardTerm("two", Learning()),
        ]

    groups = make_groups(g=[make_trajectory("a", "g", [0.0, 1.0])])
    models = RewardModels(terms())
    assert models.learns and not RewardModels().learns
    assert models.fit(groups) == {
        "reward_one_loss": 1.0,
        "reward_one_groups": 1.0,
        "reward_two_loss": 1.0,
        "reward_two_groups": 1.0,
    }
    models.save(tmp_path)
    assert sorted(path.name for path in (tmp_path / "rewards").iterdir()) == ["one", "two"]
    resumed = RewardModels(terms())
    resumed.load(tmp_path)
    assert [term.model.fits for term in resumed.terms] == [1, 0, 1]  # type: ignore[union-attr]
    assert resumed.accounts() == [f"{name}: 3 asked" for name in ("one", "still", "two")]
    assert resumed.take_metrics() == {f"reward_{name}_asked": 3.0 for name in ("one", "still", "two")}


async def test_a_term_may_not_be_called_success(tmp_path: Path) -> None:
    host = load_host()
    host.register(SimpleNamespace(agentrl_reward_models=lambda: {"success": Learning}), "wrong")
    blueprint = Blueprint(
        read(tmp_path, '[[rewards]]\nname = "success"\n'), host, RunFolder(tmp_path), SimpleNamespace()
    )
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match="environment's word on success"):
            open_rewards(blueprint, engine(), policy(tmp_path), stack)
