"""An environment whose requirements conflict with ours: declared, installed, listed, played and checked."""

import asyncio
import fcntl
import functools
import threading

import pydantic
import pytest
from typer.testing import CliRunner

from agentrl import OwnVenv, call
from agentrl.cli.main import app
from agentrl.errors import ConfigError
from agentrl.plugins import load_host
from agentrl.remote.pool import WORKERS
from agentrl.testing import check_environment
from agentrl.venvs import install

pytestmark = pytest.mark.slow

PLUGIN = """
from agentrl import OwnVenv

def agentrl_environments():
    return {"old_desk": OwnVenv("old_desk.world:OldDesk", requirements=("pydantic==1.10.21",), summary="An old desk.")}
"""
WORLD = '''
import pydantic
from agentrl import Env, Task, ToolError, call, tool


class Order(pydantic.BaseModel):
    sold: int

    @pydantic.validator("sold")
    def few(cls, sold):
        if sold > 9:
            raise ValueError("more than there are")
        return sold


class OldDesk(Env):
    """Sell what is asked for."""

    runs_in = "loop"
    max_steps = 5

    def __init__(self, *, most: int = 5, shops: list[str] = ["north"], broken: bool = False) -> None:
        if most < 1:
            raise ValueError("most is below 1")
        self.most, self.broken = most, broken

    def tasks(self, split):
        start = 0 if split == "train" else 100
        for seed in range(start, start + 30):
            yield Task(f"{split}-{seed}", "old_desk", seed, {"wanted": 10 + seed % self.most})

    def reset(self, task):
        self.wanted, self.sold, self.told = task.data["wanted"], 0, False
        return f"Sell {self.wanted}."

    @tool
    def sell(self, count: int, shop: str = "north") -> str:
        """Sell some.

        count: how many
        """
        try:
            self.sold += Order(sold=count).sold
        except pydantic.ValidationError as error:
            raise ToolError("there are not so many") from error
        return f"sold {self.sold}"

    @tool
    def version(self) -> str:
        """Whose pydantic."""
        return pydantic.VERSION

    @tool
    def fail(self) -> str:
        """Fail."""
        return {}["nothing"] if self.broken else "not yet"

    def answered(self, text):
        return None

    def reward(self):
        return float(self.sold == self.wanted)

    def state_key(self):
        return str(self.sold)

    def snapshot(self):
        return {"wanted": self.wanted, "sold": self.sold}

    def restore(self, snapshot):
        self.wanted, self.sold = snapshot["wanted"], snapshot["sold"]

    def oracle(self, task):
        yield call("sell", count=9)
        yield call("sell", count=self.wanted - 9)
        yield call("version")
        yield call("version")
        yield call("version")
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The plugin's folder is found by imports here; its virtual environment is made by the command."""
    folder = tmp_path_factory.mktemp("old")
    package = folder / "old_desk"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(PLUGIN)
    (package / "world.py").write_text(WORLD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTRL_VENVS", str(folder / "venvs"))
        patch.syspath_prepend(str(folder))
        missing = load_host(("old_desk.plugin",)).entries("environments")
        assert {entry.name: entry.state for entry in missing}["old_desk"] == "missing"
        done = CliRunner().invoke(app, ["env", "install", "old_desk", "--plugin", "old_desk.plugin"])
        assert done.exit_code == 0, done.output
        assert "old_desk is ready" in done.output
        yield package
        WORKERS.close()


def factory(**options):
    made = load_host(("old_desk.plugin",)).factory("environments", "old_desk")
    return functools.partial(made, **options) if options else made


def test_it_plays_with_its_own_versions_and_we_keep_ours(installed):
    async def play():
        world = factory(most=3)()
        tasks = list(world.tasks("train"))
        assert len(tasks) == 30 and max(task.data["wanted"] for task in tasks) == 12
        assert (await world.reset(tasks[1])).messages[-1].content == "Sell 11."
        told = await world.step(call("version"))
        assert told.observation.messages[0].content == "1.10.21"
        wrong = await world.step(call("sell", count="2"))
        assert wrong.policy_error.startswith("sell: argument 'count': expected `int`, got `str`")
        refused = await world.step(call("sell", count=100))
        assert refused.policy_error == "there are not so many"
        first = await world.step(call("sell", count=9))
        assert (first.reward, first.truncated, first.observation.state_key) == (0.0, False, "9")
        last = await world.step(call("sell", count=2))
        assert (last.reward, last.truncated, last.observation.state_key) == (1.0, True, "11")
        await world.close()

    asyncio.run(play())
    assert pydantic.VERSION.startswith("2.")


def test_its_schema_is_the_one_that_the_model_would_see_here(installed):
    sell, *_ = factory()().tools()
    assert sell.parameters == {
        "type": "object",
        "properties": {
            "count": {"type": "integer", "description": "how many"},
            "shop": {"type": "string", "default": "north"},
        },
        "required": ["count"],
    }


def test_its_options_are_checked_as_any_others(installed):
    host = load_host(("old_desk.plugin",))
    (problem,) = host.check("environments", "old_desk", {"mots": 3}, where="[environment]")
    assert "has no key 'mots'. Did you mean 'most'? Allowed: broken, most, shops." in problem
    with pytest.raises(Exception, match="most is below 1"):
        host.create("environments", "old_desk", {"most": 0})
    with pytest.raises(ConfigError, match="runs with the packages that are installed here"):
        host.own_venv("keydoor")


def test_the_check_holds_for_it_and_names_its_files(installed):
    report = check_environment(factory(), tasks=2)
    assert report.ok, str(report)
    assert report["processes"].outcome == "ok", str(report)
    assert f"{installed / 'world.py'}:" in str(report)

    async def fail():
        world = factory(broken=True)()
        await world.reset(next(iter(world.tasks("test"))))
        try:
            await world.step(call("fail"))
        finally:
            await world.close()

    with pytest.raises(Exception, match=r"OldDesk.fail raised KeyError: 'nothing' at .*world.py:\d+"):
        asyncio.run(fail())


def test_a_second_install_has_nothing_to_do_and_a_wrong_requirement_says_what_pip_said(installed):
    again = CliRunner().invoke(app, ["env", "install", "old_desk", "--plugin", "old_desk.plugin"])
    assert again.exit_code == 0 and "already there" in again.output


def test_who_installs_what_is_being_installed_waits_and_finds_it_there(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTRL_VENVS", str(tmp_path))
    own, told = OwnVenv("old_desk.world:OldDesk", ("no-such-package==0",)), []
    own.folder.mkdir()
    with (tmp_path / f"{own.folder.name}.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = threading.Thread(target=install, args=(own, told.append))
        second.start()
        (own.folder / "agentrl.json").write_text("{}")
    second.join(30)
    assert told == [f"already there: {own.folder}"]
