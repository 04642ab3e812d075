"""search_qa: the generated world, BM25 and its folder, the remote form, scores, and who must not win."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import re
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_qa.command import app
from search_qa.documents import Document, read_documents, read_questions
from search_qa.env import Corpus, SearchQA
from search_qa.index import Saved, build, load, save, words
from search_qa.phrases import PHRASES
from search_qa.plugin import suite
from search_qa.remote import Remote
from search_qa.scoring import citations, exact_match, f1, normalised, read_answer, supported
from search_qa.world import PATHS, make_world
from typer.testing import CliRunner

from agentrl import Suite, Task, call, say
from agentrl.environment import adapt
from agentrl.errors import ConfigError, InfrastructureFault, InvalidDataError
from agentrl.plugins import load_host
from agentrl.testing import assert_environment, play
from agentrl.types import StepResult

CORPUS = [
    Document("a", "Apples", "Apples are red or green fruit."),
    Document("b", "Pears", "Pears are green. Pears are sweet."),
    Document("c", "Zürich", "Zürich liegt am See: 日本語 too."),
    Document("d", "Limes", "Limes are green and sour, and limes are small."),
]


def told(result: StepResult) -> str:
    return " ".join(message.content for message in result.observation.messages)


def jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("split", ["train", "test"])
async def test_oracle_answers_with_sources(hops: int, split: str) -> None:
    for task in islice(SearchQA(hops=hops).tasks(split), 40):
        results = await play(SearchQA(hops=hops), task)
        assert not any(result.policy_error for result in results)
        assert results[-1].terminated and results[-1].reward == 1.0
        assert results[-1].scores == {
            **{"success": 1.0, "em": 1.0, "f1": 1.0, "citation_precision": 1.0, "citation_recall": 1.0},
            "unsupported": 0.0,
        }


def test_a_question_of_n_hops_takes_n_documents() -> None:
    for split, phrases in PHRASES.items():
        world = make_world(split, 0)
        by_id = {document.id: document for document in world.documents}
        for hops in PATHS:
            for seed in range(60):
                question = world.ask(phrases, hops, Random(seed))
                assert len(set(question.sources)) == hops and "{" not in question.text
                assert question.answers[0] not in question.text
                # Each document tells the next one's name, and only the last one the answer.
                for name, following in zip(question.sources, [*question.trail[1:], question.answers[0]], strict=True):
                    assert following in by_id[name].text
                for name in question.trail[1:]:
                    assert name not in question.text


def test_no_fact_stands_in_two_documents() -> None:
    world = make_world("train", 3)
    for name, thing in world.things.items():
        others = [other.document.text for other in world.things.values() if other is not thing]
        if thing.kind == "town":
            assert thing.facts["river"] in thing.document.text
            assert not any(thing.facts["river"] in text for text in others), name


def test_splits_share_no_name_and_no_sentence() -> None:
    def names(split: str) -> set[str]:
        texts = " ".join(d.title + " " + d.text for world in range(12) for d in make_world(split, world).documents)
        made = re.findall(r"\b[A-Z][a-z]+\b", texts)
        fixed = " ".join(form for forms in PHRASES[split].documents.values() for form in forms)
        return set(made) - set(re.findall(r"\w+", fixed))

    train, test = names("train"), names("test")
    assert len(train) > 500 and train.isdisjoint(test)
    years = {
        split: {int(y) for d in make_world(split, 0).documents for y in re.findall(r"\b1\d{3}\b", d.text)}
        for split in PHRASES
    }
    assert years["train"] and years["test"] and years["train"].isdisjoint(years["test"])
    forms = [
        {*sum(p.documents.values(), ()), *p.questions, *p.relations.values(), *p.works, *p.trades, *p.regions}
        for p in PHRASES.values()
    ]
    assert forms[0].isdisjoint(forms[1])


def test_worlds_of_one_split_differ_so_that_answers_cannot_be_learnt() -> None:
    worlds = [set(make_world("train", number).things) for number in range(6)]
    assert all(len(one & other) <= 4 for one in worlds for other in worlds if one is not other)


def brute_force(query: str, documents: list[Document], count: int) -> list[str]:
    """Lucene's BM25 by its definition: idf = log(1 + (N - n + 0.5) / (n + 0.5)), k1 1.5, b 0.75."""
    texts = [words(f"{document.title} {document.text}") for document in documents]
    mean = sum(map(len, texts)) / len(texts)
    totals = []
    for place, text in enumerate(texts):
        total = 0.0
        for word in dict.fromkeys(words(query)):
            n = sum(word in other for other in texts)
            tf = text.count(word)
            total += (
                math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) * tf / (tf + 1.5 * (0.25 + 0.75 * len(text) / mean))
            )
        totals.append((-round(total, 5), place))
    return [documents[place].id for score, place in sorted(totals)[:count] if score < 0]


@pytest.mark.parametrize(
    "query", ["green", "sour limes", "pears sweet pears", "apples fruit green", "see zürich", "日本語"]
)
def test_ranking_is_that_of_the_formula(query: str) -> None:
    assert [d.id for d in build(CORPUS).search(query, 3, 100)] == brute_force(query, CORPUS, 3) != []


@given(
    st.lists(st.sampled_from(["red", "green", "sweet", "sour", "small", "pear", "lime"]), min_size=1, max_size=5),
    st.integers(1, 30),
)
@settings(max_examples=40, deadline=None)
def test_ranking_of_many_documents_is_that_of_the_formula(query: list[str], count: int) -> None:
    rng = Random(1)
    kinds = ["red", "green", "sweet", "sour", "small", "pear", "lime", "plum"]
    documents = [Document(str(i), "", " ".join(rng.choices(kinds, k=rng.randint(2, 6)))) for i in range(25)]
    assert [d.id for d in build(documents).search(" ".join(query), count, 100)] == brute_force(
        " ".join(query), documents, count
    )


@pytest.mark.parametrize("query", ["", "the of and", "unheardof", "?!"])
def test_a_search_for_nothing_finds_nothing(query: str) -> None:
    assert build(CORPUS).search(query, 3, 100) == []


def test_a_folder_finds_and_shows_what_memory_does(tmp_path: Path) -> None:
    assert save(CORPUS, tmp_path / "index") == Saved(4, 0, 0)
    here, there = build(CORPUS), load(tmp_path / "index")
    assert len(there) == 4
    for query in ("green", "zürich see", "limes apples", "sour"):
        for longest in (1, 5, 1000):
            assert there.search(query, 4, longest) == here.search(query, 4, longest) != []


def test_a_huge_document_is_cut_and_says_so(tmp_path: Path) -> None:
    characters = 100_000_000
    corpus = tmp_path / "corpus.jsonl"
    with corpus.open("w") as file:
        file.write('{"id": "huge", "title": "Huge", "text": "whale ')
        for _ in range(characters // 1_000_000):
            file.write("é" * 500_000 + "x" * 500_000)
        file.write('"}\n{"id": 2, "contents": "\\"Small\\"\\nshrimp and whale"}\n')
    out = CliRunner().invoke(app, ["index", str(corpus), str(tmp_path / "index")])
    assert out.exit_code == 0, out.output
    assert "2 documents indexed" in out.output and "1 of them are longer than 100,000 characters" in out.output
    index = load(tmp_path / "index")
    (huge,) = [document for document in index.search("whale", 5, 50) if document.id == "huge"]
    assert huge.text.startswith("whale éééé")
    assert huge.text.endswith("\n[cut: 100,000,006 characters, the first 50 are shown]")
    found = CliRunner().invoke(app, ["query", str(tmp_path / "index"), "shrimp"])
    assert found.output == "[2] Small: shrimp and whale\n"


@pytest.mark.parametrize(
    ("line", "words_of_error"),
    [
        ('{"id": "x", "text": ', r"corpus.jsonl:3 is no JSON"),
        ("[1, 2]", "corpus.jsonl:3 is a JSON list"),
        ('{"id": "x"}', "corpus.jsonl:3 has the keys id and the id 'x'; a document has"),
        ('{"text": "no id"}', "corpus.jsonl:3 has the keys text"),
        ('{"id": "x", "text": 5}', "corpus.jsonl:3 has the keys"),
        (
            '{"id": 1.5, "text": "x"}',
            r"corpus.jsonl:3 has the keys id, text and the id 1.5; a document has an `id`, text",
        ),
        ('{"id": "a", "text": "twice"}', "corpus.jsonl:3: two documents have the id 'a'"),
        ('{"id": "x", "text": "\\ud800"}', "corpus.jsonl:3 holds half a character"),
        ("[" * 100_000, "corpus.jsonl:3 is no JSON"),
    ],
)
def test_a_broken_line_is_named_and_leaves_no_index(tmp_path: Path, line: str, words_of_error: str) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(f'{{"id": "a", "text": "fine"}}\n\n{line}\n')
    with pytest.raises(InvalidDataError, match=words_of_error):
        save(read_documents(corpus), tmp_path / "index")
    with pytest.raises(ConfigError, match="there is no search index"):
        load(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"], "nothing is left of it"


def test_a_compressed_corpus_is_read_and_what_cannot_be_found_is_counted(tmp_path: Path) -> None:
    rows = [{"id": 1, "text": "whale"}, {"id": "2", "text": ""}, {"id": "3", "contents": "The\nof"}]
    text = "\ufeff" + "\r\n".join(map(json.dumps, rows))
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    found = CliRunner().invoke(app, ["index", str(tmp_path / "corpus.jsonl.gz"), str(tmp_path / "new" / "index")])
    assert found.output.endswith("\n2 of them hold no word that could be found.\n"), found.output
    assert [document.id for document in load(tmp_path / "new" / "index").search("whale", 3, 9)] == ["1"]
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(InvalidDataError, match=r"cut.jsonl.gz cannot be read \(Compressed file ended"):
        list(read_documents(tmp_path / "cut.jsonl.gz"))


def test_an_index_made_again_does_not_change_under_who_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    save(CORPUS, folder)
    index = load(folder)
    shutil.rmtree(folder)
    save([Document("z", "Plums", "Plums, and limes that are not limes at all. " * 9)], folder)
    assert index.search("limes", 1, 99) == [CORPUS[3]]
    assert [document.id for document in load(folder).search("limes", 1, 99)] == ["z"]


@pytest.mark.parametrize(
    ("text", "query", "found"),
    [
        ("東京は日本の首都です。", "首都", True),
        ("東京は日本の首都です。", "大阪", False),
        ("Ein Café in der Straße", "cafe\u0301 STRASSE", True),
        ("Москва — столица", "МОСКВА", True),
        ("ﬁve ＡＢＣ", "five abc", True),
        ("กรุงเทพมหานคร", "กรุงเทพ", True),
    ],
)
def test_words_of_other_languages_are_found(text: str, query: str, found: bool) -> None:
    index = build([Document("a", "", text), Document("b", "", "zzz")])
    assert bool(index.search(query, 1, 99)) is found


def test_indexes_that_cannot_be_used_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no search index at .*missing. Make one: agentrl search index CORPUS"):
        SearchQA(corpus=Corpus("q.jsonl", index=str(tmp_path / "missing")))
    save(CORPUS, tmp_path / "index")
    with pytest.raises(ConfigError, match="is not empty"):
        save(CORPUS, tmp_path / "index")
    (tmp_path / "index" / "offsets.npy").unlink()
    with pytest.raises(ConfigError, match="is damaged"):
        load(tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text('{"format": 99}')
    with pytest.raises(ConfigError, match="has format 99; 2 is read"):
        load(tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"has format \[\]; 2 is read"):
        load(tmp_path / "index")
    with pytest.raises(InvalidDataError, match="there is no file"):
        list(read_documents(tmp_path / "nothing.jsonl"))
    with pytest.raises(InvalidDataError, match="no word that could be found"):
        build([Document("a", "", "the of")])


def test_parquet_is_read_as_jsonl(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"id": str(i), "contents": f'"Title {i}"\ntext {i}'} for i in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "corpus.parquet")
    assert list(read_documents(tmp_path / "corpus.parquet")) == list(read_documents(jsonl(tmp_path / "c.jsonl", rows)))
    asked = [{"question": "Who?", "golden_answers": ["a", "b"]}, {"question": "What?", "golden_answers": ["c"]}]
    parquet.write_table(pyarrow.Table.from_pylist(asked), tmp_path / "q.parquet")
    assert read_questions(tmp_path / "q.parquet") == read_questions(jsonl(tmp_path / "q.jsonl", asked))
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(InvalidDataError, match="is no parquet file"):
        list(read_documents(tmp_path / "bad.parquet"))


def test_questions_of_your_own_over_an_index(tmp_path: Path) -> None:
    save(CORPUS, tmp_path / "index")
    rows = [{"question": f"What is sour, {i}?", "answer": "limes", "sources": ["d"]} for i in range(10)]
    corpus = Corpus(str(jsonl(tmp_path / "q.jsonl", rows)), index=str(tmp_path / "index"))
    train, test = (list(SearchQA(corpus=corpus).tasks(split)) for split in ("train", "test"))
    assert len(train) == 8 and [task.data["text"] for task in test] == ["What is sour, 4?", "What is sour, 9?"]
    results = asyncio.run(play(SearchQA(corpus=corpus), train[0]))
    assert results[-1].scores["success"] == results[-1].scores["citation_recall"] == 1.0
    assert_environment(partial(SearchQA, corpus=corpus), tasks=2)
    assert Suite("mine", "1", SearchQA, options={"corpus": asdict(corpus)}).tasks == tuple(test)
    jsonl(tmp_path / "bad.jsonl", [{"question": "Who?", "answers": ["x"]}, {"question": "When?", "answers": []}])
    with pytest.raises(InvalidDataError, match=r"bad.jsonl:2 has the answers \[\]; none has"):
        read_questions(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("row", "read"),
    [
        ({"answer": 42}, ("42",)),
        ({"answer": ["x", 7, "?!"]}, ("x", "7")),
        ({"answer": "A"}, ("A",)),
        ({"answer": {"value": "x"}}, "has the keys question, answer and the answer {'value': 'x'}; a question has"),
        ({"answer": [["x"]]}, "and the answer"),
        ({"answer": None}, "and the answer None"),
        ({"answer": "?!"}, "none has a letter or a digit"),
        ({"answer": "x", "question": "who  IS it?"}, "q.jsonl:2 asks what .*q.jsonl:1 asks"),
    ],
)
def test_answers_of_a_file_are_read_or_refused_by_line(tmp_path: Path, row: Any, read: Any) -> None:
    path = jsonl(tmp_path / "q.jsonl", [{"question": "Who is it?", "answer": "x"}, {"question": "?", **row}])
    if isinstance(read, tuple):
        assert read_questions(path)[1].answers == read
        assert exact_match(read[0], read) == 1.0
    else:
        with pytest.raises(InvalidDataError, match=read):
            read_questions(path)


def test_questions_that_leak_or_point_nowhere_are_refused(tmp_path: Path) -> None:
    save(CORPUS, tmp_path / "index")

    def tasks(name: str, rows: list[Any], test: str = "") -> list[Task]:
        corpus = Corpus(str(jsonl(tmp_path / name, rows)), test, str(tmp_path / "index"))
        return list(SearchQA(corpus=corpus).tasks("test"))

    asked = [{"question": f"Which one is {n}?", "answer": "limes"} for n in range(5)]
    assert len(tasks("good.jsonl", asked)) == 1
    with pytest.raises(InvalidDataError, match="has 4 questions; every fifth is held out"):
        tasks("few.jsonl", asked[:4])
    with pytest.raises(InvalidDataError, match=r"both ask 'Which one is 4\?' \(1 in all\)"):
        tasks("train.jsonl", asked[:2] + asked[4:], str(jsonl(tmp_path / "test.jsonl", asked[2:])))
    with pytest.raises(InvalidDataError, match="names the source 'nowhere', which the index does not have"):
        tasks("lost.jsonl", [*asked, {"question": "Where?", "answer": "x", "sources": ["a", "nowhere"]}])


@asynccontextmanager
async def serving(body: bytes | None, *statuses: int) -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """A retriever that always answers `body`; None breaks the connection in the middle of the answer.

    The first answers have `statuses`, then 200; a status of 0 is no answer at all.
    """
    coming = iter(statuses)
    answering: list[asyncio.Task[Any] | None] = []
    asked: list[tuple[str, Any]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append(asyncio.current_task())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(re.findall(r"content-length: (\d+)", head.lower())[0])
        asked.append((head.split("\r\n")[0], json.loads(await reader.readexactly(size))))
        status = next(coming, 200)
        if not status:
            # Until the client has had enough.
            await reader.read()
            writer.close()
            return
        whole = body if body is not None else b'{"result": [['
        length = len(whole) if body is not None else 5000
        head = f"HTTP/1.1 {status} So\r\nretry-after: 0\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        writer.write(head.encode() + whole)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        await asyncio.gather(*filter(None, answering))


REMOTE = Task("t", "search_qa", data={"text": "Which lime?", "answers": ["green"], "sources": [], "trail": []})


async def test_a_remote_retriever_is_asked_in_search_r1s_form(tmp_path: Path) -> None:
    questions = str(jsonl(tmp_path / "q.jsonl", [{"question": "Which lime?", "answer": "green"}]))
    found = {"document": {"id": "7", "contents": '"Limes"\nLimes are green.'}, "score": 3.5}
    bare = {"id": 8, "title": "Pears", "text": "Pears."}
    async with serving(json.dumps({"result": [[found, bare]]}).encode()) as (url, asked):
        env = SearchQA(corpus=Corpus(questions, retriever_url=f"{url}/retrieve"), topk=2)
        lines = [call("search", query="limes"), call("open", document="[7]"), say("Green. [7]")]
        results = await play(env, REMOTE, lines)
    assert asked == [("POST /retrieve HTTP/1.1", {"queries": ["limes"], "topk": 2, "return_scores": True})]
    assert told(results[0]) == "[7] Limes: Limes are green.\n[8] Pears: Pears."
    assert told(results[1]) == "[7] Limes\nLimes are green."
    assert results[-1].scores["success"] == results[-1].scores["citation_precision"] == 1.0
    assert results[-1].scores["unsupported"] == 0.0


@pytest.mark.parametrize(
    ("body", "words_of_error"),
    [
        (None, "failed"),
        (b'{"detail": "no corpus"}', "answered something else than documents"),
        (b'{"result": []}', "answered something else than documents"),
        (b'{"result": [[{"document": {"id": "1"}}]]}', "a document without contents"),
        (b"<html>", "JSON"),
    ],
)
async def test_a_retriever_that_dies_or_raves_is_a_fault_and_never_a_zero(
    body: bytes | None, words_of_error: str, tmp_path: Path
) -> None:
    questions = str(jsonl(tmp_path / "q.jsonl", [{"question": "Which lime?", "answer": "green"}]))
    async with serving(body) as (url, _):
        env = SearchQA(corpus=Corpus(questions, retriever_url=url))
        world = adapt(env)
        await world.reset(REMOTE)
        with pytest.raises(InfrastructureFault, match=words_of_error):
            await world.step(call("search", query="limes"))
        await world.close()


async def test_a_server_that_is_busy_is_asked_again_and_one_that_hangs_is_a_fault() -> None:
    body = json.dumps({"result": [[{"document": {"contents": "Limes\nsour"}}]]}).encode()
    async with serving(body, 500, 503) as (url, asked):
        remote = Remote(url, 20.0)
        (one,), (again,) = [await remote.search(query, 3, 100) for query in ("limes", "sour")]
        await remote.close()
    assert len(asked) == 4 and one == again and re.fullmatch(r"#[0-9a-f]{8}", one.id)
    async with serving(body, 0) as (url, _):
        remote = Remote(url, 0.2)
        with pytest.raises(InfrastructureFault, match=r"did not answer within 0\.2 s"):
            await remote.search("limes", 3, 100)
        await remote.close()


async def test_of_passages_with_one_id_the_last_one_shown_is_opened() -> None:
    env = SearchQA()
    passages = iter(
        [[Document("7", "A", "first")], [Document("7", "A", "second")], [Document("Rome, Italy", "R", "x")]]
    )

    class Passages:
        async def search(self, query: str, count: int, longest: int) -> list[Document]:
            return next(passages)

        async def close(self) -> None:
            return None

    env._retriever = Passages()
    await env.search("a")
    await env.search("a")
    assert env.open("7").endswith("second")
    await env.search("a")
    env.answered("x [Rome, Italy] [7, 8]")
    assert env.open("[Rome, Italy]").endswith("x") and env.scores()["citation_precision"] == 0.0
    assert read_answer(env.answer, env.found).cited == ("Rome, Italy", "7", "8")


async def test_a_long_document_of_a_server_is_cut() -> None:
    body = json.dumps({"result": [[{"document": {"id": "1", "contents": "x" * 9000}, "score": 1}]]}).encode()
    async with serving(body) as (url, _):
        remote = Remote(url, 5.0)
        (document,) = await remote.search("x", 3, 100)
        await remote.close()
    assert document.text == f"{'x' * 100}\n[cut: 9,000 characters, the first 100 are shown]"


@pytest.mark.parametrize(
    ("text", "right", "em", "f"),
    [
        ("The Nile.", ["nile"], 1.0, 1.0),
        ("a  NILE river", ["Nile"], 0.0, 2 / 3),
        ("Amazon", ["Nile", "amazon"], 1.0, 1.0),
        ("", ["Nile"], 0.0, 0.0),
        ("the", ["Nile"], 0.0, 0.0),
        ("Nile Nile", ["Nile"], 0.0, 2 / 3),
        ("U.S.A.", ["usa"], 1.0, 1.0),
    ],
)
def test_exact_match_and_f1_are_squads(text: str, right: list[str], em: float, f: float) -> None:
    assert exact_match(text, right) == em and f1(text, right) == pytest.approx(f)


@given(st.text(max_size=60))
@settings(max_examples=50, deadline=None)
def test_normalisation_is_done_once(text: str) -> None:
    once = normalised(text)
    assert exact_match(text, [text]) == float(bool(once)) and f1(text, [text]) == float(bool(once.split()))


def test_answers_are_read_without_their_citations() -> None:
    assert read_answer("I looked. Answer: Nile [d1] [d2, d1]").text == "Nile"
    assert read_answer("Nile [d1] [d2, d1]").cited == ("d1", "d2")
    assert read_answer("x" * 5000).text == "x" * 1000


def test_citations_and_support_are_told_apart() -> None:
    assert citations(["a", "x"], ["a", "b"], {}).precision == citations(["a", "x"], ["a", "b"], {}).recall == 0.5
    assert citations([], ["a"], {}).precision == citations([], ["a"], {}).recall == 0.0
    assert citations(["a"], [], {"a": True}).recall == 1.0 and citations(["a"], [], {"a": False}).precision == 0.0
    assert supported("the Nile", ["On the nile, far away"]) and not supported("Nile", ["Niles"])
    assert not supported("", ["anything"])


async def test_a_right_answer_that_was_seen_nowhere_is_marked() -> None:
    task = next(SearchQA().tasks("train"))
    (guessed,) = await play(SearchQA(), task, [say(f"{task.data['answers'][0]} [d1]")])
    assert guessed.scores["em"] == guessed.scores["unsupported"] == 1.0
    assert guessed.scores["citation_precision"] == guessed.scores["citation_recall"] == 0.0


async def test_only_what_was_found_can_be_opened() -> None:
    task = next(SearchQA(hops=1).tasks("train"))
    source = task.data["sources"][0]
    lines = [call("open", document=source), call("search", query=task.data["trail"][0]), call("open", document=source)]
    first, _, third = await play(SearchQA(hops=1), task, lines)
    assert first.policy_error == f"no search has found '{source}'; found: none yet."
    assert not third.policy_error and task.data["answers"][0] in told(third)


async def test_a_restored_episode_goes_on_as_the_first_one() -> None:
    for task in islice(SearchQA(hops=3).tasks("train"), 10):
        env = SearchQA(hops=3)
        first, second = adapt(env), adapt(SearchQA(hops=3))
        await first.reset(task)
        line = [*env.oracle(task)]
        for action in line[:2]:
            await first.step(action)
        kept: Any = await first.snapshot()  # type: ignore[attr-defined]
        await second.restore(json.loads(json.dumps(kept)))  # type: ignore[attr-defined]
        for action in line[2:]:
            assert await first.step(action) == await second.step(action)


def test_the_suite_is_held_out_and_stable() -> None:
    made = suite()
    assert len(made.tasks) == 256 and {task.split for task in made.tasks} == {"test"}
    assert made.hash == suite().hash != suite(hops=1).hash
    assert {tag for task in made.tasks for tag in task.tags} == {"1-hop", "2-hop", "3-hop"}


async def test_state_keys_know_what_was_found() -> None:
    task = next(SearchQA(hops=1).tasks("train"))
    name = task.data["trail"][0]
    one, two = [(await play(SearchQA(hops=1), task, [call("search", query=q)]))[0] for q in (name, f"{name}?")]
    assert one.observation.state_key == two.observation.state_key
    (three,) = await play(SearchQA(hops=1), task, [call("search", query="zzz")])
    assert three.observation.state_key != one.observation.state_key
    assert told(three) == "nothing was found; try other words."


@pytest.mark.parametrize(
    ("options", "words_of_error"),
    [
        ({"hops": 4}, "hops is 4"),
        ({"reward": "rouge"}, "must be one of 'em' or 'f1'"),
        ({"topk": 0}, "topk 0"),
        ({"cuts": {"snippet": 0}}, "snippet 0"),
        ({"corpus": {"index": "x"}}, "needs a value for 'corpus.questions'"),
        ({"corpus": {"questions": "z"}}, "one of them answers"),
        ({"corpus": {"questions": "z", "index": "x", "retriever_url": "http://y"}}, "one of them answers"),
        ({"corpus": {"questions": "z", "indx": "x"}}, "Did you mean 'index'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words_of_error: str) -> None:
    with pytest.raises(ConfigError, match=words_of_error):
        load_host().create("environments", "search_qa", options)


@pytest.mark.parametrize("options", [{"hops": 1}, {"hops": 3, "reward": "f1"}])
def test_the_shipped_check_finds_it_sound(options: dict[str, Any]) -> None:
    assert_environment(partial(SearchQA, **options), tasks=4)
