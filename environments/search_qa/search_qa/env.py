"""The environment `search_qa`: a question, `search` and `open`, and an answer in plain text.

The reward is the answer's alone; what was cited and whether the answer was seen anywhere are scored apart.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import chain, count
from pathlib import Path
from random import Random
from typing import Any, Literal, get_args

from agentrl import Action, Env, Task, ToolError, call, say, tool
from agentrl.errors import ConfigError, InvalidDataError
from search_qa.documents import Document, Question, read_questions
from search_qa.index import Index, load
from search_qa.phrases import PHRASES
from search_qa.rerank import Rerank, Reranked, embedder_of
from search_qa.retrievers import Local, Retriever
from search_qa.scoring import citations, exact_match, f1, read_answer, supported
from search_qa.world import PATHS, index_of, make_world

TEST_TASKS = 256
PER_WORLD = 16
"Questions about one generated world."
Reward = Literal["em", "f1"]
_HELD_OUT = 5
"Of a single file of questions, every fifth one is held out."


@dataclass(frozen=True, slots=True)
class Cuts:
    """Characters of a document that are shown."""

    snippet: int = 80
    "By a search."
    document: int = 4_000
    "Opened."


@dataclass(frozen=True, slots=True)
class Corpus:
    """Questions of your own, and what answers the searches. Raises `ConfigError`."""

    questions: str
    "A JSONL or parquet file."
    test_questions: str = ""
    "Another for the test split, else every fifth is held out."
    index: str = ""
    "A folder made by `agentrl search index`."
    retriever_url: str = ""
    "A server in Search-R1's form in its place."

    def __post_init__(self) -> None:
        if bool(self.index) == bool(self.retriever_url):
            raise ConfigError(
                f"index is {self.index!r} and retriever_url {self.retriever_url!r}; one of them answers the searches."
            )


class SearchQA(Env):
    """Answer a question by searching, opening what was found, and saying the answer with the documents it rests on."""

    runs_in = "loop"
    step_deadline = 60.0
    system = (
        "Answer the question from the documents. Search, open what looks right, and search again where it takes "
        "several documents. Then say the answer alone, in as few words as possible, followed by the documents it "
        "rests on in square brackets: Paris [d12] [d7]"
    )

    def __init__(
        self,
        *,
        hops: int = 2,
        topk: int = 3,
        cuts: Cuts = Cuts(),
        horizon: int = 10,
        reward: Reward = "em",
        rerank: Rerank = "",
        corpus: Corpus | None = None,
    ) -> None:
        """hops: the most documents that a generated question takes (1 to 3). topk: documents that a search shows.

        horizon: actions per episode. reward: em or f1. rerank: "minilm" lets a small embedding model have a say in the
        order. corpus: yours, in place of the generated world.
        """
        if hops not in PATHS:
            raise ConfigError(f"hops is {hops}; generated questions take {min(PATHS)} to {max(PATHS)} documents.")
        if reward not in get_args(Reward):
            raise ConfigError(f"reward is {reward!r}; search_qa has {', '.join(get_args(Reward))}.")
        if min(topk, horizon, cuts.snippet, cuts.document) < 1:
            raise ConfigError(
                f"topk {topk}, horizon {horizon}, snippet {cuts.snippet}, document {cuts.document}: each is above 0."
            )
        self.hops, self.topk, self.cuts, self.kind = hops, topk, cuts, reward
        self.max_steps = horizon
        self._embedder = embedder_of(rerank)
        self._corpus = corpus
        self._index: Index | None = _loaded(corpus.index) if corpus and corpus.index else None
        self._retriever: Retriever | None = None
        self._begin(Question("", ("",)))

    def tasks(self, split: str) -> Iterator[Task]:
        """train: endless in the generated world. test: 256. The worlds of the splits share no name and no sentence."""
        if split not in ("train", "test"):
            raise ConfigError(f"search_qa has no split {split!r}; it has 'train' and 'test'.")
        if self._corpus is not None:
            yield from _own(self._corpus, split, self._index)
            return
        for seed in range(TEST_TASKS) if split == "test" else count():
            rng = Random(f"{split}/{self.hops}/{seed}")
            hops = rng.randint(1, self.hops)
            world = seed // PER_WORLD
            question = make_world(split, world).ask(PHRASES[split], hops, rng)
            data = {**_plain(question), "world": [split, world]}
            yield Task(f"search_qa-{self.hops}-{split}-{seed}", "search_qa", seed, data, split, (f"{hops}-hop",))

    async def reset(self, task: Task) -> str:
        await self.close()
        data = dict(task.data)
        world = data.pop("world", None)
        self._begin(Question(data["text"], *(tuple(data[key]) for key in ("answers", "sources", "trail"))))
        if world is not None:
            # In a thread: the first one imports the library, and a large one takes its time.
            self._retriever = Local(await asyncio.to_thread(index_of, *world))
        elif self._index is not None:
            self._retriever = Local(self._index)
        else:
            assert self._corpus is not None
            # Not before: to list what is registered loads no HTTP client.
            from search_qa.remote import Remote

            self._retriever = Remote(self._corpus.retriever_url, self.step_deadline - 5)
        if self._embedder is not None:
            self._retriever = Reranked(self._retriever, self._embedder)
        return self.question.text

    @tool
    async def search(self, query: str) -> str:
        """Find documents by words.

        query: what to look for
        """
        assert self._retriever is not None
        found = await self._retriever.search(query, self.topk, self.cuts.document)
        # The last one shown, where a server has several passages of one id.
        self.found |= {document.id: document for document in found}
        return "\n".join(map(self._line, found)) or "nothing was found; try other words."

    @tool
    def open(self, document: str) -> str:
        """Read a document that a search has found.

        document: its id, without brackets
        """
        name = document if document in self.found else document.strip().strip("[]")
        if name not in self.found:
            known = ", ".join(list(self.found)[-10:]) or "none yet"
            raise ToolError(f"no search has found {name[:80]!r}; found: {known}.")
        self.opened.add(name)
        shown = self.found[name]
        return f"[{shown.id}] {shown.title}\n{shown.text}"

    def answered(self, text: str) -> None:
        """Speaking is answering: it ends the episode."""
        self.answer = text

    def reward(self) -> float:
        found = read_answer(self.answer, self.found).text
        return (exact_match if self.kind == "em" else f1)(found, self.question.answers)

    def scores(self) -> dict[str, float]:
        given = read_answer(self.answer, self.found)
        shown = [self._line(document) for document in self.found.values()]
        shown += [self.found[name].text for name in sorted(self.opened)]
        holding = {
            name: any(supported(right, [f"{document.title} {document.text}"]) for right in self.question.answers)
            for name, document in self.found.items()
        }
        cited = citations([name for name in given.cited if name in self.found], self.question.sources, holding)
        invented = sum(name not in self.found for name in given.cited)
        em = exact_match(given.text, self.question.answers)
        return {
            "success": em,
            "em": em,
            "f1": f1(given.text, self.question.answers),
            # Documents that no search has found are cited in vain.
            "citation_precision": cited.precision * (1 - invented / len(given.cited)) if given.cited else 0.0,
            "citation_recall": cited.recall,
            "unsupported": float(bool(given.text) and not supported(given.text, shown)),
        }

    def state_key(self) -> str:
        state = [_plain(self.question), sorted(self.found), sorted(self.opened), self.answer]
        return sha256(json.dumps(state).encode()).hexdigest()[:24]

    def snapshot(self) -> dict[str, Any]:
        return {
            "found": [asdict(document) for document in self.found.values()],
            "opened": sorted(self.opened),
            "answer": self.answer,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Of the same task, which `reset` has begun."""
        self._begin(self.question)
        self.found.update((entry["id"], Document(**entry)) for entry in snapshot["found"])
        self.opened.update(snapshot["opened"])
        self.answer = snapshot["answer"]

    def oracle(self, task: Task) -> Iterator[Action]:
        """Follows the hops of a generated question; of a question from a file it knows the answer alone."""
        question = self.question
        for query, source in zip(question.trail, question.sources, strict=False):
            yield call("search", query=query)
            yield call("open", document=source)
        if not question.trail:
            yield call("search", query=question.text)
        yield say(" ".join([question.answers[0], *(f"[{name}]" for name in question.sources if name in self.found)]))

    def cheats(self, task: Task) -> Mapping[str, Iterable[Action]]:
        """None of them wins: an answer is short, and not in the question."""
        question = self.question
        everything = [call("search", query=query) for query in (question.text, *question.trail)]
        key = f"the answer key says {', '.join(question.answers)}"
        guess = make_world("train", 10**6).things
        return {
            "answer_without_searching": [say(min(guess))],
            "repeat_the_question": [call("search", query=question.text), say(question.text)],
            "write_the_answer_key": [say(key)],
            "say_all_that_was_found": chain(everything, _say_all(self)),
            "search_and_say_nothing": [*everything, say("")],
            "name_all_that_was_found": chain(everything, _name_all(self)),
            "answer_and_then_another": [say(f"Answer: {question.answers[0]} Answer: nobody at all")],
            "answer_in_brackets": [say(f"[{question.answers[0]}]")],
            "cite_only": [*everything, say(" ".join(f"[{name}]" for name in question.sources) or "[1]")],
        }

    async def close(self) -> None:
        if self._retriever is not None:
            await self._retriever.close()
            self._retriever = None

    def _begin(self, question: Question) -> None:
        self.question = question
        self.found: dict[str, Document] = {}
        self.opened: set[str] = set()
        self.answer = ""

    def _line(self, document: Document) -> str:
        most = self.cuts.snippet
        shown = document.text if len(document.text) <= most else f"{document.text[:most]}..."
        return f"[{document.id}] {document.title}: {shown}"


def _say_all(env: SearchQA) -> Iterator[Action]:
    """Read when its turn comes: what the searches before it have found."""
    yield say(" ".join(f"{document.title} {document.text}" for document in env.found.values()))


def _name_all(env: SearchQA) -> Iterator[Action]:
    yield say(" or ".join([*(document.title for document in env.found.values()), "nobody"]))


def _own(corpus: Corpus, split: str, index: Index | None) -> Iterator[Task]:
    _check(corpus.questions, corpus.test_questions, index)
    held_out = corpus.test_questions if split == "test" else ""
    for place, question in enumerate(_questions(held_out or corpus.questions)):
        if corpus.test_questions or (place % _HELD_OUT == _HELD_OUT - 1) == (split == "test"):
            yield Task(f"search_qa-{split}-{place}", "search_qa", place, _plain(question), split)


def _plain(question: Question) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(question).items()}


@functools.lru_cache(maxsize=4)
def _loaded(folder: str) -> Index:
    """Read only, so that all instances share it."""
    return load(Path(folder))


@functools.lru_cache(maxsize=4)
def _questions(path: str) -> tuple[Question, ...]:
    return tuple(read_questions(Path(path)))


@functools.lru_cache(maxsize=4)
def _check(train: str, test: str, index: Index | None) -> None:
    """Raises `InvalidDataError` where nothing is held out, what is held out is trained on, or a source is nowhere."""
    asked = _questions(train)
    if not test and len(asked) < _HELD_OUT:
        raise InvalidDataError(
            f"{train} has {len(asked)} questions; every fifth is held out, so 5 are needed. Or name test_questions."
        )
    both = {question.text for question in asked} & {question.text for question in _questions(test)} if test else set()
    if both:
        raise InvalidDataError(f"{test} and {train} both ask {min(both)!r} ({len(both)} in all): take it out of one.")
    sourced = [question for question in (*asked, *(_questions(test) if test else ())) if question.sources]
    known = set(index.ids) if index is not None and sourced else set()
    for question in sourced if known else ():
        for source in question.sources:
            if source not in known:
                raise InvalidDataError(
                    f"the question {question.text[:80]!r} names the source {source!r}, which the index does not have."
                )
