"""A new environment package passes its own check, is found as a plugin, and can be played from a pipe."""

import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from agentrl.cli.env import environment_factory
from agentrl.cli.play import choose_task, parse_line, play_environment, show
from agentrl.cli.scaffold import class_name, new_environment
from agentrl.environment import adapt, call, say
from agentrl.errors import ConfigError, UnknownNameError
from agentrl.options import parse_options
from agentrl.types import Action, Message, Observation, ToolCall, ToolSpec

COLOR = {"type": "string", "enum": ["red", "blue"]}
TOOLS = [
    ToolSpec("open", "Open.", {"type": "object", "properties": {"color": COLOR, "wide": {"type": "boolean"}}}),
    ToolSpec(
        "count", "Count.", {"type": "object", "properties": {"n": {"type": "integer"}, "word": {"type": "string"}}}
    ),
]


def agentrl(*words, cwd, path="", stdin=""):
    """The command line in a process of its own."""
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, str(path)])), "COLUMNS": "200"}
    command = [sys.executable, "-m", "agentrl.cli.main", *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=environment, input=stdin, capture_output=True, text=True, timeout=120, check=False
    )


def install(package: Path, site: Path) -> None:
    """What pip leaves behind for an editable install, without the network that its build needs."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = project["entry-points"]["agentrl"]
    (info / "entry_points.txt").write_text("[agentrl]\n" + "\n".join(f"{k} = {v}" for k, v in points.items()) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "a_b2"])
def test_new_then_check_then_play_on_the_command_line(tmp_path, name):
    wrote = agentrl("new", "env", name, cwd=tmp_path)
    assert wrote.returncode == 0, wrote.stderr
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == sorted(
        [f"{name}.py", "pyproject.toml", "README.md", f"test_{name}.py"]
    )
    plugin = ("--plugin", tmp_path / name / f"{name}.py")
    checked = agentrl("env", "check", name, *plugin, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{class_name(name)} is sound" in checked.stdout
    install(tmp_path / name, tmp_path / "site")
    found = os.pathsep.join([str(tmp_path / "site"), str(tmp_path / name)])
    played = agentrl("play", name, cwd=tmp_path, path=found, stdin="1 red\nopen_box color=blue\n")
    assert played.returncode == 0, played.stderr
    assert "[open_box] You opened the red box." in played.stdout
    assert "done: return 1 (success 1)" in played.stdout
    again = agentrl("new", "env", name, cwd=tmp_path)
    assert again.returncode != 0 and "exists already" in again.stderr


@pytest.mark.slow
def test_the_written_test_passes_under_pytest(tmp_path):
    package = new_environment("ticket_shop", tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    ran = subprocess.run(
        command, cwd=package, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert "1 passed" in ran.stdout


@pytest.mark.slow
def test_a_cheatable_environment_fails_the_command(tmp_path):
    package = new_environment("holey", tmp_path)
    source = package / "holey.py"
    sound = "float(self.opened == self.wanted)"
    assert sound in source.read_text()
    source.write_text(source.read_text().replace(sound, "float(set(self.opened) == set(self.wanted))"))
    checked = agentrl("env", "check", "holey", "--plugin", source, cwd=tmp_path)
    assert checked.returncode == 1
    assert "failed  cheats        the cheat 'other way round' wins" in checked.stdout
    line = next(i for i, text in enumerate(source.read_text().splitlines(), 1) if "def cheats" in text)
    assert f"at {source}:{line}" in checked.stdout


@pytest.mark.parametrize("name", ["My-Env", "class", "json", "agentrl", "2fast", "a__b", "../x", ""])
def test_a_bad_name_is_refused_and_nothing_is_written(tmp_path, name):
    with pytest.raises(ConfigError, match="name"):
        new_environment(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_class_names_read_back():
    assert [class_name(name) for name in ("demo", "tool_desk", "a_b", "web2_shop")] == [
        "Demo",
        "ToolDesk",
        "A_B",
        "Web2Shop",
    ]


def test_names_and_options_are_checked(tmp_path):
    new_environment("first_one", tmp_path)
    plugin = [str(tmp_path / "first_one" / "first_one.py")]
    assert next(iter(adapt(environment_factory("first_one", [], plugin)()).tasks("test"))).env == "first_one"
    with pytest.raises(UnknownNameError, match="Did you mean 'first_one'"):
        environment_factory("firstone", [], plugin)
    with pytest.raises(ConfigError, match="has no key 'size'"):
        environment_factory("first_one", ["size=3"], plugin)
    assert parse_options(["size=3", "kind=big", "walls=true"]) == {"size": 3, "kind": "big", "walls": True}
    assert parse_options(["a.b=3", "a.c.d=x"]) == {"a": {"b": 3, "c": {"d": "x"}}}
    with pytest.raises(ConfigError, match="a is 3, which has no keys"):
        parse_options(["a=3", "a.b=4"])
    with pytest.raises(ConfigError, match="key=value"):
        parse_options(["size"])
    with pytest.raises(ConfigError, match="twice"):
        parse_options(["size=3", "size=4"])


def test_a_typed_line_becomes_an_action():
    assert parse_line("open red", TOOLS) == call("open", color="red")
    assert parse_line("1 color=blue wide=true\n", TOOLS) == call("open", color="blue", wide=True)
    assert parse_line("2 7 'two words'", TOOLS) == call("count", n=7, word="two words")
    assert parse_line("count word=7", TOOLS) == call("count", word="7")
    assert parse_line("count n=many", TOOLS) == call("count", n="many")
    assert parse_line('{"name": "open", "arguments": {"color": "red"}}', TOOLS) == call("open", color="red")
    assert parse_line("hello there", TOOLS) == say("hello there")
    assert parse_line("say open the box", TOOLS) == say("open the box")
    assert parse_line("3 things", TOOLS) == Action("3 things")
    assert parse_line("open", TOOLS).tool_calls == (ToolCall("open", {}),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("open colour=red", "Did you mean 'color'"),
        ("open red true extra", "one value too many"),
        ("{name: open}", "not JSON"),
        ('{"tool": "open"}', '"name"'),
        ("open 'red", "Close the quotation"),
    ],
)
def test_a_line_that_is_no_call_is_explained(line, said):
    with pytest.raises(ConfigError, match=said):
        parse_line(line, TOOLS)


def test_playing_shows_what_the_model_sees(tmp_path):
    new_environment("shown", tmp_path)
    factory = environment_factory("shown", [], [str(tmp_path / "shown" / "shown.py")])
    writer = io.StringIO()
    typed = ["?", "1 pink", json.dumps({"name": "open_box", "arguments": {"color": "green"}}), "open_box red"]
    assert not play_environment(factory(), io.StringIO("\n".join(typed) + "\n"), writer, task_id="train-red-blue")
    shown = writer.getvalue()
    assert shown.startswith("task train-red-blue\n[user] Open the red box, then the blue box.\n")
    assert "argument 'color' is 'pink'" in shown and "[a mistake of the model]" in shown
    assert shown.rstrip().endswith("done: return 0 (success 0)")
    assert play_environment(factory(), io.StringIO(""), writer, split="test", seed=1) is False
    assert writer.getvalue().rstrip().endswith("left the episode; return so far 0")


def test_the_calls_of_a_solved_example_are_shown():
    lines = []
    made = Message("assistant", "", (ToolCall("find_room", {"city": "Porto"}),))
    show(Observation((Message("user", "A room?"), made)), lines.append)
    assert lines == ["[user] A room?", '[assistant] find_room {"city": "Porto"}']


def test_a_task_is_chosen_by_id_or_seed(tmp_path):
    new_environment("chosen", tmp_path)
    world = adapt(environment_factory("chosen", [], [str(tmp_path / "chosen" / "chosen.py")])())
    assert choose_task(world, "test", None, None).id == "test-red-green"
    assert choose_task(world, "train", None, 3) == choose_task(world, "train", None, 3)
    with pytest.raises(ConfigError, match="Did you mean 'train-red-blue'"):
        choose_task(world, "train", "train-red-blu", None)
