"""search_qa over one's own corpus: BM25 against its formula, its folder, the files that it reads."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
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
from search_qa.scoring import exact_match
from typer.testing import CliRunner

from agentrl import Suite, Task
from agentrl.errors import ConfigError, InvalidDataError
from agentrl.testing import assert_environment, play

CORPUS = [
    Document("a", "Apples", "Apples are red or green fruit."),
    Document("b", "Pears", "Pears are green. Pears are sweet."),
    Document("c", "Zürich", "Zürich liegt am See: 日本語 too."),
    Document("d", "Limes", "Limes are green and sour, and limes are small."),
]


def jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


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
