"""The command `agentrl search`: make an index of a corpus, and try a query on one.

Prints what it did in a line; errors are those of `documents` and `index`, with file and line.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from search_qa.documents import read_documents
from search_qa.index import INDEXED, load, save

app = typer.Typer(
    help="Indexes for the environment search_qa.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command("index")
def make_index(
    corpus: Annotated[Path, typer.Argument(help="JSONL or parquet: id, and contents, or title and text.")],
    out: Annotated[Path, typer.Argument(help="A new folder.")],
) -> None:
    """Make a BM25 index of a corpus."""
    began = time.perf_counter()
    documents, long = save(read_documents(corpus), out)
    print(f"{documents:,} documents indexed in {time.perf_counter() - began:.1f} s: {out}")
    if long:
        print(f"{long:,} of them are longer than {INDEXED:,} characters; what comes after can be opened, not found.")


@app.command()
def query(
    index: Annotated[Path, typer.Argument(help="A folder made by `agentrl search index`.")],
    text: Annotated[str, typer.Argument(help="What to look for.")],
    count: Annotated[int, typer.Option(help="Documents to show.")] = 3,
) -> None:
    """Show what a search finds."""
    for document in load(index).search(text, count, 200):
        print(f"[{document.id}] {document.title}: {document.text}")
