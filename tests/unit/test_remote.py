"""What travels between a driver and its workers, and what an environment declares of itself. No process is started."""

import enum
import functools
import math
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Optional

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrl import Env, OwnVenv, Task, arguments, arguments_plain, call
from agentrl.environment import adapt
from agentrl.errors import EnvironmentFault, InfrastructureFault, MissingDependencyError, PluginError
from agentrl.plugins import Host
from agentrl.remote import wire
from agentrl.remote.address import Address, address_of, locate
from agentrl.remote.declaration import declaration_of
from agentrl.remote.environment import RemoteEnvironment, answer
from agentrl.tools import ToolError, tool
from agentrl.types import Message, Observation, StepResult, ToolSpec


class Lamp(Env):
    """A lamp."""

    runs_in = "process"

    def __init__(self, *, height: int = 2, names: tuple[str, ...] = (), path: Path | None = None):
        self.height = height

    def tasks(self, split):
        return [Task(f"{split}-0", "lamp", 0, {})]

    def reset(self, task):
        return "dark"

    @tool
    def switch(self, times: int = 1) -> str:
        """Switch."""
        return "light"

    def reward(self):
        return 1.0


@dataclass(frozen=True, slots=True)
class Grain:
    woods: tuple[str, ...]
    shop: Path = Path("/shop")


class Bench:
    """Implements the protocol itself: its tools are known when it is made."""

    def __init__(self, *, tool: str = "saw", made_with: object = None, path: Path | None = None) -> None:
        self.tool, self.runs_in = tool, "process"
        self.made_with = {"tool": tool, "path": path} if made_with is None else made_with

    def tasks(self, split):
        return [Task(f"{split}-{self.tool}", "bench", 0, {})]

    def tools(self):
        return [ToolSpec(self.tool, "It cuts.", {"type": "object", "properties": {}})]

    async def reset(self, task):
        return Observation(())

    async def step(self, action):
        return StepResult(Observation(()), terminated=True)

    async def close(self):
        return None


def test_an_object_of_the_protocol_says_where_it_runs_and_with_which_options_it_is_made_again():
    world = adapt(Bench(tool="plane", path=Path("/wood")))
    assert isinstance(world, RemoteEnvironment) and not hasattr(world, "author")
    assert world._options == {"tool": "plane", "path": "/wood"} and world._address == address_of(Bench)
    assert [spec.name for spec in world.tools()] == ["plane"]
    assert [task.id for task in world.tasks("test")] == ["test-plane"], "asked of the one that was made here"
    grained = adapt(Bench(made_with={"tool": "plane", "grain": Grain(("oak",))}))
    assert grained._options == {"tool": "plane", "grain": {"woods": ["oak"], "shop": "/shop"}}
    here = Bench()
    here.runs_in = "loop"
    assert adapt(here) is here
    with pytest.raises(PluginError, match=r"Bench runs in a process and has made_with 3; needed are the options"):
        adapt(Bench(made_with=3))
    with pytest.raises(PluginError, match="which cannot travel to its process"):
        adapt(Bench(made_with={"tool": object()}))


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 9))
def test_frames_come_out_as_they_went_in_however_the_bytes_are_cut(bodies, size):
    sent = b"".join(wire.HEADER.pack(len(body)) + body for body in bodies)
    inbox, got = wire.Inbox(), []
    for start in range(0, len(sent), size):
        inbox.add(sent[start : start + size])
        while (frame := inbox.take()) is not None:
            got.append(frame)
    assert got == bodies


def test_an_announced_length_that_no_message_has_is_refused():
    inbox = wire.Inbox()
    inbox.add(b"\xff\xff\xff\xff")
    with pytest.raises(ValueError, match=r"4,294,967,295 bytes was announced; allowed are 1,073,741,824"):
        inbox.take()


def test_what_is_played_survives_the_wire_number_for_number():
    result = StepResult(Observation((Message("tool", "é\n", name="go", call_id="7"),), state_key="k"), 0.1 + 0.2)
    for verb, value in (("step", result), ("reset", result.observation)):
        body = msgspec.Raw(wire.encode(value))
        reply = msgspec.json.decode(wire.frame(wire.Reply(body))[wire.HEADER.size :], type=wire.Reply)
        assert answer(verb, reply) == value
    action = call("go", steps=3, to={"x": [1, 2.5, None]})
    assert msgspec.json.decode(wire.encode(action), type=wire.VERBS["step"][0]) == action
    state = random.Random(5).getstate()
    assert msgspec.json.decode(wire.encode(wire.More(0, 1, state)), type=wire.More).rng == state


def test_a_reported_error_is_raised_as_itself():
    failed = wire.Failed("InfrastructureFault", "no memory")
    with pytest.raises(InfrastructureFault, match="no memory"):
        answer("step", wire.Reply(msgspec.Raw(b"null"), failed=failed))
    failed = wire.Failed("KeyError", "odd")
    with pytest.raises(EnvironmentFault, match="odd"):
        answer("step", wire.Reply(msgspec.Raw(b"null"), failed=failed))


def test_an_address_leads_back_to_what_it_was_made_of():
    assert locate(address_of(Lamp)) is Lamp

    class Local(Lamp):
        pass

    assert address_of(Local) is None
    assert address_of(functools.partial(Lamp)) is None
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        locate(Address("no_such_module", "X"))


def test_a_world_in_a_process_declares_what_the_class_says_before_it_is_started():
    world = adapt(Lamp(height=3, path=Path("x")))
    assert isinstance(world, RemoteEnvironment)
    declared = declaration_of(adapt(_here(Lamp())))
    assert world.declared == declared
    assert (world.name, world.max_steps, world.step_deadline) == ("Lamp", 16, 30.0)
    assert [spec.name for spec in world.tools()] == ["switch"]
    assert [task.id for task in world.tasks("test")] == ["test-0"]
    assert declared.where("nothing", "reset") == f"{__file__}:{Lamp.reset.__code__.co_firstlineno}"
    assert declared.abilities == ("grade", "cheats")
    assert not declared.waits


def test_what_cannot_be_made_in_a_process_says_why():
    class Local(Lamp):
        pass

    with pytest.raises(PluginError, match=r"Local at .* cannot run in a process, since no other process can import it"):
        adapt(Local())
    with pytest.raises(PluginError, match=r"Lamp was made with \{'height': <object .*cannot travel to its process"):
        adapt(Lamp(height=object()))
    odd = Lamp()
    odd.runs_in = "cloud"
    with pytest.raises(PluginError, match="has runs_in 'cloud'; allowed: \\('loop', 'thread', 'process'\\)"):
        adapt(odd)


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Point:
    x: int
    y: float = 0.5


def _parameters(module):
    empty = ...
    return [
        module.Parameter("word", str, empty, "What to say."),
        module.Parameter("count", int, 3, None),
        module.Parameter("way", Literal["north", "south"], empty, None),
        module.Parameter("share", float, 0.5, None),
        module.Parameter("names", list[str], [], None),
        module.Parameter("point", Optional[Point], None, None),  # noqa: UP045 (as authors write it)
        module.Parameter("size", Size, empty, None),
        module.Parameter("noted", Annotated[bool, "a note"], False, None),
    ]


CALLS = [
    ('{"word": "a", "way": "north", "size": "small"}', True),
    ('{"word": "a", "way": "south", "size": "large", "count": -1, "share": 2, "names": ["é"], "noted": true}', True),
    ('{"word": "a", "way": "north", "size": "small", "point": {"x": 1}}', True),
    ('{"word": 1, "way": "north", "size": "small"}', False),
    ('{"word": "a", "way": "west", "size": "small"}', False),
    ('{"way": "north", "size": "small"}', False),
    ('{"word": "a", "way": "north", "size": "small", "count": "3"}', False),
    ('{"word": "a", "way": "north", "size": "small", "count": 1.5}', False),
    ('{"word": "a", "way": "north", "size": "small", "other": 1}', False),
    ('{"word": "a", "way": "north", "size": "small", "noted": 1}', False),
    ('{"word": "a", "way": "north", "size": "tiny"}', False),
]


@pytest.mark.parametrize(("text", "fits"), CALLS)
def test_both_readers_of_arguments_take_and_refuse_the_same(text, fits):
    outcomes = []
    for module in (arguments, arguments_plain):
        reader = module.read("tool", _parameters(module))
        if fits:
            outcomes.append(reader.check(text))
        else:
            with pytest.raises(module.Mismatch, match=r"argument|field|object"):
                reader.check(text)
    assert not fits or outcomes[0] == outcomes[1]


def test_both_readers_show_the_model_the_same_names_types_and_defaults():
    shown = [dict(module.read("tool", _parameters(module)).schema) for module in (arguments, arguments_plain)]
    for schema in shown:
        assert sorted(schema["required"]) == ["size", "way", "word"]
        properties = schema["properties"]
        assert properties["word"]["type"] == "string" and properties["word"]["description"] == "What to say."
        assert (properties["count"]["type"], properties["count"]["default"]) == ("integer", 3)
        assert properties["way"]["enum"] == ["north", "south"]
        assert properties["names"]["items"] == {"type": "string"}


def test_a_mutable_default_is_not_shared_between_calls():
    for module in (arguments, arguments_plain):
        reader = module.read("tool", [module.Parameter("names", list[str], [], None)])
        reader.check("{}")["names"].append("x")
        assert reader.check("{}")["names"] == []


def test_an_environment_with_a_venv_of_its_own_is_listed_with_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTRL_VENVS", str(tmp_path))
    own = OwnVenv("old_world.env:OldWorld", requirements=("pydantic<2",), summary="An old world.")

    class Plugin:
        def agentrl_environments(self):
            return {"old_world": own}

    host = Host()
    host.register(Plugin(), name="old")
    (entry,) = host.entries("environments")
    assert (entry.state, entry.install) == ("missing", "agentrl env install old_world")
    assert entry.detail == "needs a virtual environment of its own: An old world."
    with pytest.raises(MissingDependencyError, match=r"which is not installed. Run: agentrl env install old_world"):
        host.factory("environments", "old_world")
    assert host.own_venv("old_world") is own
    assert own.folder.parent == tmp_path
    assert own.folder != OwnVenv("old_world.env:OldWorld", requirements=("pydantic<1.9",)).folder
    assert own.folder == OwnVenv("old_world.env:OldWorld", requirements=("pydantic<2",)).folder


def test_a_declaration_that_cannot_be_is_refused():
    with pytest.raises(PluginError, match="not of the form 'module:Class'"):
        OwnVenv("old_world", requirements=("a",))
    for wrong in ((), "pydantic<2"):
        with pytest.raises(PluginError, match="a tuple of one or more is needed"):
            OwnVenv("a:B", requirements=wrong)


def test_a_class_without_options_takes_none():
    class Bare(Lamp):
        def __init__(self):
            super().__init__()

    class Barer(Env):
        tasks, reset = Lamp.tasks, Lamp.reset

    for owner in (Bare, Barer):
        owner()
        with pytest.raises(TypeError, match="argument"):
            owner(height=1)


def _here(environment):
    environment.runs_in = "loop"
    return environment


def test_a_tool_error_names_the_tool_and_how_it_is_called():
    world = _here(Lamp())
    from agentrl.tools import tools_of

    with pytest.raises(ToolError, match=r"switch: argument 'times' is 'x'.*Call it as switch\(times: integer = 1\)"):
        tools_of(type(world))["switch"].validate({"times": "x"})
    assert math.isfinite(world.reward()) and sys.executable
