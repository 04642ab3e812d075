"""Action schemas as tools, calls as actions, observations as words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("openenv", reason="openenv-core is not installed (pip install 'agentrl-openenv[openenv]')")

from agentrl_openenv.interface import interface_of, listed
from agentrl_openenv.served import Decision
from agentrl_openenv.tasks import FIRST_TEST_SEED, lines, seeds
from agentrl_openenv.words import answer, in_words
from openenv.core.env_server import Action, CallToolAction

from agentrl import EnvironmentFault, ToolCall

NESTED = {
    "type": "object",
    "description": "Move.\n\nMore.",
    "$defs": {
        "Way": {"title": "Way", "type": "string", "enum": ["east", "west"]},
        "Tree": {"type": "object", "properties": {"below": {"$ref": "#/$defs/Tree"}}},
    },
    "properties": {
        "metadata": {"type": "object"},
        "kind": {"const": "move", "title": "Kind"},
        "way": {"$ref": "#/$defs/Way", "description": "where to"},
        "tree": {"$ref": "#/$defs/Tree"},
        "title": {"type": "string", "title": "Title"},
    },
    "required": ["kind", "way"],
}


def test_fields_become_one_tool_without_what_a_model_does_not_choose() -> None:
    found = interface_of(NESTED, "act")
    (tool,) = found.tools
    assert (found.kind, tool.name, tool.description) == ("fields", "act", "Move.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "way": {"type": "string", "enum": ["east", "west"], "description": "where to"},
            "tree": {"type": "object", "properties": {"below": {}}},
            "title": {"type": "string"},
        },
        "required": ["way"],
        "additionalProperties": False,
    }
    assert found.call(ToolCall("act", {"way": "east"})) == {"way": "east", "kind": "move"}


@pytest.mark.parametrize(("action", "kind"), [(CallToolAction, "tools"), (Action, "tools"), (Decision, "decisions")])
def test_their_own_actions_are_recognised(action: type[Action], kind: str) -> None:
    assert interface_of(action.model_json_schema(), "act").kind == kind


def test_a_call_of_a_tool_server_is_its_action() -> None:
    made = interface_of(CallToolAction.model_json_schema(), "act").call(ToolCall("read", {"page": 3}))
    checked = CallToolAction.model_validate(made)
    assert (checked.tool_name, checked.arguments) == ("read", {"page": 3})


def test_actions_that_are_no_object_are_refused_in_words() -> None:
    with pytest.raises(EnvironmentFault, match="only objects with fields"):
        interface_of({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "act")


def test_a_server_without_tools_is_a_fault() -> None:
    with pytest.raises(EnvironmentFault, match="lists no tools"):
        listed({"tools": []})


def test_observations_are_told_field_by_field() -> None:
    seen = {"hint": "higher", "tries": 2, "board": [[1, 0]], "empty": "", "metadata": {"secret": 7}}
    assert in_words(seen) == "hint: higher\ntries: 2\nboard: [[1, 0]]"
    assert in_words(seen, ["hint"]) == "higher"
    assert in_words({"text": "only this", "error": None}) == "only this"


def test_answers_of_tools_tell_mistakes_from_failures() -> None:
    said = {"content": [{"type": "text", "text": "4"}, {"type": "image"}], "is_error": False}
    assert answer({"result": said}) == ("4\n[image]", "", "")
    assert answer({"result": {**said, "is_error": True}})[1] == "4\n[image]"
    assert answer({"result": {"content": [], "data": [1]}}) == ("[1]", "", "")
    assert answer({"error": {"error_type": "invalid_args", "message": "no code"}}) == ("no code", "no code", "")
    assert answer({"error": {"error_type": "timeout", "message": "30 s"}}) == ("", "", "30 s")


def test_held_out_seeds_are_no_training_seeds(tmp_path: Path) -> None:
    held = list(seeds("test"))
    assert [task.seed for task in held] == list(range(FIRST_TEST_SEED, FIRST_TEST_SEED + 128))
    first = next(seeds("train"))
    assert (first.id, first.data) == ("openenv-train-0", {"reset": {"seed": 0}})
    with pytest.raises(ValueError, match="no split 'dev'"):
        next(seeds("dev"))


def test_tasks_of_a_file_say_what_reset_is_called_with(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    entries = [{"id": "a", "seed": 4, "prompt": "Go."}, {"reset": {"level": "hard"}, "split": "test"}]
    path.write_text("\n".join(map(json.dumps, entries)) + "\n")
    (train,), (held,) = lines(path, "train"), lines(path, "test")
    assert (train.id, train.seed, train.data) == ("a", 4, {"reset": {"seed": 4}, "prompt": "Go."})
    assert (held.id, held.data["reset"]) == ("line-2", {"level": "hard"})
    path.write_text('{"seed": "x"}')
    with pytest.raises(ValueError, match="line 1, is no task"):
        list(lines(path, "train"))
