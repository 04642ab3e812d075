"""`agentrl view`: a run or an evaluation as a page, served on this machine or written as one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import typer

from agentrl.view.book import PAGE, save_book
from agentrl.view.collection import Collection


def serve(folders: Sequence[Path], host: str, port: int, episode: str) -> None:
    """Until interrupted; the address is printed first."""
    from agentrl.view.server import listen, make_app
    from agentrl.view.server import serve as answer

    with Collection(folders) as collection:
        place = f"#/episode/{quote(episode, safe='')}" if episode else ""
        if episode:
            collection.episode(episode)
        with listen(host, port) as listening:
            shown = f"[{host}]" if ":" in host else host
            typer.echo(f"view     http://{shown}:{listening.getsockname()[1]}/{place}  (Ctrl-C ends it)")
            answer(make_app(collection, PAGE), listening)


def write(folders: Sequence[Path], path: Path, episode: str) -> None:
    """One file in place of a server."""
    book = save_book(folders[0], path, folders[1:], first=episode)
    left = f"; {book.left_out:,} more are listed only" if book.left_out else ""
    unlisted = f"; {book.unlisted:,} are not in it" if book.unlisted else ""
    size = path.stat().st_size / 1e6
    typer.echo(f"saved    {path}  ({size:.1f} MB, {len(book.episodes):,} episodes{left}{unlisted})")
