"""Tool-call formats: what is written reads back, and nothing malformed is repaired."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.errors import RenderingError
from agentrl.rendering.plain import Plain
from agentrl.rendering.signatures import signature
from agentrl.rendering.toolcalls import Hermes, LlamaJSON, ToolCallFormat
from agentrl.types import Action, ToolCall, ToolSpec

GO = ToolSpec(
    "go",
    "Walk.",
    {
        "type": "object",
        "properties": {"direction": {"type": "string", "enum": ["north", "south"]}},
        "required": ["direction"],
    },
)
BOOK = ToolSpec(
    "book",
    "Book a room.\nReally.",
    {
        "type": "object",
        "properties": {
            "room": {"type": "integer", "description": "its number"},
            "day": {"type": "string"},
            "hours": {"type": "number"},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "guests": {"type": "array", "items": {"type": "string"}},
            "quiet": {"type": "boolean"},
        },
        "required": ["room", "day"],
    },
)
WAIT = ToolSpec("wait", "", {"type": "object", "properties": {}})
TOOLS = (GO, BOOK, WAIT)


def calls(*pairs: tuple[str, dict[str, object]]) -> Action:
    return Action(tool_calls=tuple(ToolCall(name, arguments) for name, arguments in pairs))


def test_a_signature_is_one_line() -> None:
    assert signature(GO) == "go(direction: 'north'|'south') - Walk."
    assert signature(BOOK) == (
        "book(room: integer (its number), day: string, hours?: number, note?: string, guests?: list of string, "
        "quiet?: boolean) - Book a room. Really."
    )
    assert signature(WAIT) == "wait()"


def test_references_in_a_schema_are_followed() -> None:
    color = {"enum": ["red", "blue"], "type": "string"}
    schema = {"$defs": {"Color": color}, "properties": {"color": {"$ref": "#/$defs/Color"}}, "required": ["color"]}
    assert signature(ToolSpec("paint", "", schema)) == "paint(color: 'red'|'blue')"


def test_hermes_is_written_as_qwen_writes_it() -> None:
    action = Action("I look.", (ToolCall("go", {"direction": "north"}), ToolCall("wait", {})))
    assert Hermes().write(action, TOOLS) == (
        'I look.\n<tool_call>\n{"name": "go", "arguments": {"direction": "north"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "wait", "arguments": {}}\n</tool_call>'
    )


def test_text_around_hermes_calls_is_kept() -> None:
    block = '<tool_call>{"name": "wait", "arguments": {}}</tool_call>'
    action = Hermes().read(f" before {block} between {block} after ", TOOLS)
    assert action.text == "before\nbetween\nafter"
    assert [call.name for call in action.tool_calls] == ["wait", "wait"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('<tool_call>{"name": "go", "arguments": {}}', "no closing </tool_call>"),
        ('{"name": "go", "arguments": {}}</tool_call>', "without <tool_call> before"),
        ("<tool_call>{name: go}</tool_call>", "not valid JSON: Expecting property name"),
        ('<tool_call>{"name": "go", "arguments": {"n": NaN}}</tool_call>', "NaN is not a JSON number"),
        ('<tool_call>["go"]</tool_call>', "JSON list, not an object"),
        ('<tool_call>{"name": "go", "arguments": "north"}</tool_call>', "is a string, not an object"),
        ('<tool_call>{"name": "go", "arguments": null}</tool_call>', "is a null, not an object"),
        ('<tool_call>{"name": "go"}</tool_call>', 'has no "arguments"'),
        ('<tool_call>{"arguments": {}}</tool_call>', 'has no "name"'),
        ('<tool_call>{"name": 3, "arguments": {}}</tool_call>', 'has no "name"'),
        ('<tool_call>{"name": "go", "arguments": {}, "id": 1}</tool_call>', 'unknown key "id"'),
        ('<tool_call>{"name": "go", "arguments": {"a": 1, "a": 2}}</tool_call>', 'key "a" twice'),
        ("<tool_call>" + "[" * 100_000 + "</tool_call>", "tool call is not"),
        ('<tool_call>{"name": "go", "arguments": {"n": ' + "1" * 5000 + "}}</tool_call>", "too long"),
        ("<tool_call></tool_call>", "not valid JSON"),
    ],
)
def test_a_malformed_hermes_call_is_told_and_not_repaired(text: str, mistake: str) -> None:
    action = Hermes().read(text, TOOLS)
    assert mistake in action.error
    assert "Write a call as:\n<tool_call>\n" in action.error
    assert action.tool_calls == ()
    assert action.text == text


def test_a_closing_tag_inside_a_value_does_not_end_the_call() -> None:
    action = calls(("book", {"room": 1, "day": "a</tool_call>b"}))
    assert Hermes().read(Hermes().write(action, TOOLS), TOOLS) == action


def test_one_malformed_call_refuses_the_whole_answer() -> None:
    good = '<tool_call>{"name": "wait", "arguments": {}}</tool_call>'
    action = Hermes().read(f"{good}<tool_call>{{</tool_call>", TOOLS)
    assert action.error and action.tool_calls == ()


def test_the_right_form_is_shown_for_the_tool_that_was_meant() -> None:
    action = Hermes().read('<tool_call>{"name": "book", "arguments": [1]}</tool_call>', TOOLS)
    assert '{"name": "book", "arguments": {"room": 1, "day": "..."}}' in action.error


def test_llama_json_is_the_whole_answer() -> None:
    form = LlamaJSON()
    assert form.write(calls(("go", {"direction": "north"})), TOOLS) == (
        '{"name": "go", "parameters": {"direction": "north"}}'
    )
    assert form.read("It is {done}.", TOOLS) == Action("It is {done}.")
    assert "not valid JSON: Extra data" in form.read('{"name": "wait", "parameters": {}} and now?', TOOLS).error
    assert 'has no "parameters"' in form.read('{"name": "wait", "arguments": {}}', TOOLS).error
    with pytest.raises(RenderingError, match="one call and no text"):
        form.write(Action("hm", (ToolCall("wait", {}),)), TOOLS)


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("go north", calls(("go", {"direction": "north"}))),
        ("wait", calls(("wait", {}))),
        ('book 3 "next friday"', calls(("book", {"room": 3, "day": "next friday"}))),
        ("book 3 friday 1.5 _ _ true", calls(("book", {"room": 3, "day": "friday", "hours": 1.5, "quiet": True}))),
        ("book 3 friday 2 null", calls(("book", {"room": 3, "day": "friday", "hours": 2, "note": None}))),
        (
            r'book 3 "_" _ "null" "[\"Ann\", \"Bo\"]"',
            calls(("book", {"room": 3, "day": "_", "note": "null", "guests": ["Ann", "Bo"]})),
        ),
        ("say I am done", Action("I am done")),
        ("say", Action("")),
    ],
)
def test_the_plain_form_is_tool_and_values_in_schema_order(text: str, action: Action) -> None:
    assert Plain().read(text, TOOLS) == action
    assert Plain().write(action, TOOLS) == text


def test_plain_values_are_written_in_schema_order_whatever_the_callers_order() -> None:
    action = calls(("book", {"day": "friday", "room": 3}))
    assert Plain().write(action, TOOLS) == "book 3 friday"
    assert Plain().write(action, ()) == "book friday 3"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("fly north", "'fly' is no tool. Tools: go, book, wait."),
        ("", "The answer is empty."),
        ("go", "go needs direction. Write: go <direction: 'north'|'south'>"),
        ("go north north", "takes 1 values, not 2"),
        ("go _", "needs direction"),
        ('book 3 "friday', "never closed"),
        ("book three friday", "room of book is integer, not 'three'"),
        ("book 3 friday 1e999", "hours of book is number"),
        ("book 3 friday 2 ok {}", "guests of book is list of string"),
        ("book 3 friday 2 ok [] yes", "quiet of book is boolean"),
    ],
)
def test_a_malformed_plain_call_is_told_and_not_repaired(text: str, mistake: str) -> None:
    action = Plain().read(text, TOOLS)
    assert mistake in action.error
    assert action.tool_calls == () and action.text == text


def test_the_plain_form_refuses_what_it_cannot_say() -> None:
    with pytest.raises(RenderingError, match="no parameter 'speed'"):
        Plain().write(calls(("go", {"speed": 3})), TOOLS)
    with pytest.raises(RenderingError, match="2 calls"):
        Plain().write(calls(("wait", {}), ("wait", {})), TOOLS)


words = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
bookings = st.fixed_dictionaries(
    {"room": st.integers(-(10**20), 10**20), "day": words},
    optional={
        "hours": st.floats(allow_nan=False, allow_infinity=False),
        "note": st.none() | words,
        "guests": st.lists(words, max_size=3),
        "quiet": st.booleans(),
    },
)


@pytest.mark.parametrize("form", [Hermes(), LlamaJSON(), Plain()], ids=lambda form: form.name)
@settings(deadline=None, max_examples=60)
@given(arguments=bookings)
def test_every_call_reads_back_as_it_was_written(form: ToolCallFormat, arguments: dict[str, object]) -> None:
    action = calls(("book", arguments))
    assert form.read(form.write(action, TOOLS), TOOLS) == action


@pytest.mark.parametrize("form", [Hermes(), LlamaJSON(), Plain()], ids=lambda form: form.name)
@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=60) | st.text(alphabet='{}[]":,<>/_ abgotlcn\\"', max_size=60))
def test_any_text_reads_as_an_action(form: ToolCallFormat, text: str) -> None:
    action = form.read(text, TOOLS)
    assert not (action.error and action.tool_calls)
