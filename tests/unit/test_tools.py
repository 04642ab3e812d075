"""A tool's schema, validation and error text all come from its signature and docstring."""

import enum
import json
import random
from typing import Annotated, Literal, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python

from agentrl.agents import random_arguments
from agentrl.errors import PluginError
from agentrl.tools import ToolError, describe, encode_result, find_tool, parse_docstring, signature, tool, tools_of


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: int = 1


class Tree(BaseModel):
    title: str
    children: list["Tree"] = []


@tool
def order(
    item: str,
    count: int,
    price: float = 1.5,
    gift: bool = False,
    size: Literal["s", "m"] = "m",
    color: Color = Color.RED,
    note: Optional[str] = None,  # noqa: UP045
    tags: list[str] = [],  # noqa: B006
    extra: dict[str, int] = {},  # noqa: B006
    to: Address | None = None,
) -> str:
    """Order an item.

    A second paragraph.

    Args:
        item: what to order
        count (int): how many,
            at least one
        to: where it goes
    """
    return item


def test_schema_has_types_defaults_choices_and_descriptions():
    spec = describe(order).spec
    properties = spec.parameters["properties"]
    assert spec.name == "order"
    assert spec.description == "Order an item.\n\nA second paragraph."
    assert spec.parameters["required"] == ["item", "count"]
    assert properties["item"] == {"type": "string", "description": "what to order"}
    assert properties["count"] == {"type": "integer", "description": "how many, at least one"}
    assert properties["price"] == {"type": "number", "default": 1.5}
    assert properties["size"] == {"type": "string", "enum": ["s", "m"], "default": "m"}
    assert properties["color"] == {"type": "string", "enum": ["red", "blue"], "default": "red"}
    assert properties["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    assert properties["tags"] == {"type": "array", "items": {"type": "string"}, "default": []}
    assert properties["to"]["anyOf"][0]["properties"]["number"] == {"type": "integer", "default": 1}
    assert "$defs" not in json.dumps(spec.parameters)


def test_a_recursive_model_keeps_its_reference_and_a_field_named_title_survives():
    def plant(tree: Tree) -> str:
        """Plant."""
        return ""

    schema = describe(plant).spec.parameters
    assert schema["properties"]["tree"]["properties"]["title"] == {"type": "string"}
    assert schema["properties"]["tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert schema["$defs"]["Tree"]["required"] == ["title"]
    drawn = random_arguments(describe(plant).spec, random.Random(0))
    assert describe(plant).validate(drawn)["tree"].title == drawn["tree"]["title"]


def test_a_default_beside_a_definition_is_data_and_keeps_its_keys():
    class Book(BaseModel):
        title: str = "unknown"

    def put(book: Book = Book()) -> str:  # noqa: B008
        """Put it back."""
        return book.title

    shown = describe(put).spec.parameters["properties"]["book"]
    assert shown["default"] == {"title": "unknown"}
    assert shown["properties"] == {"title": {"default": "unknown", "type": "string"}}


def test_arguments_arrive_as_the_annotated_types():
    values = describe(order).validate(
        {"item": "tea", "count": 2, "price": 3, "color": "blue", "to": {"street": "Elm"}, "size": "s"}
    )
    assert values["price"] == 3.0 and isinstance(values["price"], float)
    assert values["color"] is Color.BLUE
    assert values["to"] == Address(street="Elm", number=1)
    assert values["tags"] == [] and values["note"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"item": "tea"}, "argument 'count' is missing"),
        ({"item": "tea", "count": "2"}, "argument 'count' is '2': input should be a valid integer"),
        ({"item": "tea", "count": True}, "argument 'count' is True"),
        ({"item": "tea", "count": 1, "color": "pink"}, "'red' or 'blue'"),
        ({"item": "tea", "count": 1, "colour": "red"}, "there is no argument 'colour'"),
        ({"item": "tea", "count": 1, "price": float("nan")}, "argument 'price'"),
        ({"item": "tea", "count": 1, "to": {"number": 2}}, "argument 'to.street' is missing"),
        ({"item": {1}, "count": 1}, "not JSON"),
    ],
)
def test_a_wrong_argument_is_told_and_never_repaired(arguments, said):
    with pytest.raises(ToolError, match="order: ") as caught:
        describe(order).validate(arguments)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


def test_an_unknown_tool_gets_a_suggestion():
    with pytest.raises(ToolError, match=r"no tool is called 'ordr'. Did you mean 'order'\? Tools: order."):
        find_tool({"order": describe(order)}, "ordr")


def test_signature_is_one_line_with_types_and_defaults():
    text = signature(describe(order).spec)
    assert text.startswith('order(item: string, count: integer, price: number = 1.5, gift: boolean = false, size: "s"')
    assert "to: {street: string, number: integer} | null = null" in text


def test_parameter_names_that_pydantic_keeps_for_itself_are_fine():
    def save(copy: int, schema: str, model_config: bool = False) -> str:
        """Save."""
        return ""

    assert describe(save).validate({"copy": 1, "schema": "x"}) == {"copy": 1, "schema": "x", "model_config": False}


def test_annotated_bounds_reach_schema_and_validation():
    def roll(sides: Annotated[int, Field(ge=2, le=6)]) -> str:
        """Roll.

        sides: of the die
        """
        return ""

    assert describe(roll).spec.parameters["properties"]["sides"] == {
        "type": "integer",
        "minimum": 2,
        "maximum": 6,
        "description": "of the die",
    }
    with pytest.raises(ToolError, match="less than or equal to 6"):
        describe(roll).validate({"sides": 7})


def test_a_tool_without_annotation_or_with_a_foreign_type_names_its_line():
    def bare(x) -> str:
        """Bare."""
        return x

    def foreign(x: random.Random) -> str:
        """Foreign."""
        return ""

    def loose(*parts: str) -> str:
        """Loose."""
        return ""

    line = bare.__code__.co_firstlineno
    with pytest.raises(PluginError, match=rf"bare has no annotation for 'x', at .*test_tools.py:{line}\."):
        describe(bare)
    with pytest.raises(PluginError, match="without a JSON schema"):
        describe(foreign)
    with pytest.raises(PluginError, match="name each parameter"):
        describe(loose)


def test_tools_of_a_class_keep_their_order_and_overrides():
    class Base:
        @tool
        def first(self) -> str:
            """One."""
            return ""

        @tool
        def second(self) -> str:
            """Two."""
            return ""

    class Derived(Base):
        @tool
        def third(self) -> str:
            """Three."""
            return ""

        @tool
        def first(self, loud: bool) -> str:
            """One, louder."""
            return ""

        def second(self) -> str:
            return "no longer a tool"

    found = tools_of(Derived)
    assert list(found) == ["first", "third"]
    assert found["first"].spec.description == "One, louder."


def test_docstring_lines_of_parameters_leave_the_description():
    text = "Do it.\n\nwhere: the place\n  and more of it\nnot_mine: stays\n:param how: the way"
    assert parse_docstring(text, ["where", "how"]) == (
        "Do it.\n\nnot_mine: stays",
        {"where": "the place and more of it", "how": "the way"},
    )


def test_results_that_are_not_text_become_json():
    assert encode_result("as it is") == "as it is"
    assert encode_result({"n": 1, "c": Color.RED}) == '{"n":1,"c":"red"}'
    assert encode_result(Address(street="Elm")) == '{"street":"Elm","number":1}'
    assert encode_result(None) == "null"
    with pytest.raises(ValueError, match="serialize"):
        encode_result(random.Random())


@given(st.integers(0, 2**32))
def test_random_arguments_fit_the_schema_and_survive_json(seed):
    described = describe(order)
    arguments = random_arguments(described.spec, random.Random(seed))
    checked = described.validate(arguments)
    assert described.validate(json.loads(json.dumps(to_jsonable_python(checked)))) == checked
