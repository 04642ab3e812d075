"""The command `agentrl search`: make an index of a corpus, try a query on one, measure what is found.

Prints what it did in a line; errors are those of `documents` and `index`, with file and line.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from agentrl.errors import ConfigError
from search_qa.documents import read_documents, read_questions
from search_qa.index import INDEXED, load, save
from search_qa.recall import READ, generated
from search_qa.recall import recall as measure
from search_qa.rerank import Embedder, Reranked, embedder_of
from search_qa.retrievers import Local, Retriever

_SHOWN = 200
"Characters of a document."
app = typer.Typer(
    help="Indexes for the environment search_qa.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command("index")
def make_index(
    corpus: Annotated[Path, typer.Argument(help="JSONL (or .gz) or parquet: id, and contents, or title and text.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
) -> None:
    """Make a BM25 index of a corpus."""
    began = time.perf_counter()
    saved = save(read_documents(corpus), out)
    print(f"{saved.documents:,} documents indexed in {time.perf_counter() - began:.1f} s: {out}")
    if saved.wordless:
        print(f"{saved.wordless:,} of them hold no word that could be found.")
    if saved.long:
        print(
            f"{saved.long:,} of them are longer than {INDEXED:,} characters; what comes after can be opened, not found."
        )


@app.command()
def query(
    index: Annotated[Path, typer.Argument(help="A folder made by `agentrl search index`.")],
    text: Annotated[str, typer.Argument(help="What to look for.")],
    count: Annotated[int, typer.Option(help="Documents to show.")] = 3,
    rerank: Annotated[str, typer.Option(help="minilm: let a small embedding model have a say.")] = "",
) -> None:
    """Show what a search finds."""
    retriever = _over(Local(load(index)), embedder_of(rerank))
    for document in asyncio.run(retriever.search(text, count, READ if rerank else _SHOWN)):
        print(f"[{document.id}] {document.title}: {document.cut(_SHOWN)}")


@app.command()
def recall(
    index: Annotated[Path | None, typer.Argument(help="An index; without one, generated worlds.")] = None,
    questions: Annotated[Path | None, typer.Argument(help="JSONL or parquet whose rows name `sources`.")] = None,
    count: Annotated[int, typer.Option(help="Questions.")] = 256,
    hops: Annotated[int, typer.Option(help="Of generated questions, at most.")] = 2,
    rerank: Annotated[str, typer.Option(help="minilm: let a small embedding model have a say.")] = "",
) -> None:
    """Tell how much of what questions need stands among the first documents found for them."""
    if (index is None) != (questions is None):
        raise ConfigError(f"index is {index} and questions {questions}; name both, or neither for generated worlds.")
    embedder = embedder_of(rerank)
    if index is not None and questions is not None:
        local = Local(load(index))
        asked = [(local, question) for question in read_questions(questions)[:count]]
    else:
        asked = list(generated(hops, count))
    found = asyncio.run(measure((_over(local, embedder), question) for local, question in asked))
    print("  ".join(f"recall@{k} {share:.3f}" for k, share in found.items()))


def _over(first: Retriever, embedder: Embedder | None) -> Retriever:
    return first if embedder is None else Reranked(first, embedder)
