"""One HTML file that shows a run or an evaluation from the disk: the page, its data inside, no server.

Nothing in the data can leave its element, and the file's own policy lets nothing else run or load.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agentrl.errors import AgentRLError, StoreError
from agentrl.files import write_whole
from agentrl.pictures import media_type
from agentrl.view.collection import Collection
from agentrl.view.shapes import Book, EpisodeView

PAGE = Path(__file__).resolve().parent / "page"
LARGEST = 20_000_000
"Bytes of the data that a file holds, about: what a browser opens without a pause."
LISTED = 5000
"Episodes that are listed, the newest ones."
_STYLE = re.compile(r"^.*<link rel=\"?stylesheet.*$", re.MULTILINE)
_SCRIPT = re.compile(r"^.*<script type=\"?module.*$", re.MULTILINE)
_POLICY = "<!--csp-->"


def save_book(
    folder: Path, path: Path, others: Sequence[Path] = (), *, first: str = "", largest: int = LARGEST
) -> Book:
    """Write `folder`, compared with `others`, as `path`, and return what is in it.

    `first` is an episode that is in it whatever the bound leaves out. Raises `StoreError` for what the disk does, and
    where `first` is not there.
    """
    with Collection([folder, *others]) as collection:
        book = make_book(collection, first=first, largest=largest)
    write_whole(path, bind(book, PAGE).encode())
    return book


def make_book(collection: Collection, *, first: str = "", largest: int = LARGEST) -> Book:
    """Episodes until `largest` bytes are full: `first`, then what the runs disagree on, then from the newest on."""
    overview, grid = collection.overview(), collection.grid()
    reader = collection.archives[0].reader
    lines = list(reader.rows(order=f"rowid DESC LIMIT {LISTED}"))
    chosen = _Chosen(collection, largest)
    if first and not chosen.take(first, 0):
        raise StoreError(f"{collection.archives[0].folder} holds no episode {first!r} that can be opened.")
    for row in grid.rows if len(collection.archives) > 1 else ():
        for run, members in enumerate(row.episodes):
            for name in members if row.flipped else ():
                chosen.take(name, run)
    for line in lines:
        chosen.take(line.id, 0)
    listed = {line.id for line in lines}
    # What can be opened is listed too.
    lines += [view.line for key, view in chosen.episodes.items() if "?run=" not in key and view.line.id not in listed]
    return Book(
        overview=overview,
        grid=grid,
        lines=lines,
        episodes=chosen.episodes,
        left_out=sum(line.id not in chosen.episodes for line in lines),
        unlisted=overview.episodes - len(lines),
        images=chosen.images,
    )


def bind(book: Book, page: Path) -> str:
    """The page's files and the data as one document. Raises `StoreError` where a file of the page is missing."""
    try:
        frame = (page / "index.html").read_text(encoding="utf-8")
        style = (page / "style.css").read_text(encoding="utf-8")
        modules = [(page / name).read_text(encoding="utf-8") for name in (page / "ORDER").read_text().split()]
    except OSError as error:
        raise StoreError(f"the page's files cannot be read: {error}. Install agentrl again.") from error
    script = "\n".join(_inlined(module) for module in modules)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    data = f'<script type="application/json" id="book">{escaped(book)}</script>'
    # Functions as replacements: in a text, backslashes of the data would be read as references to groups.
    frame = frame.replace(_POLICY, f'<meta http-equiv="Content-Security-Policy" content="{policy}">')
    frame = _STYLE.sub(lambda _: f"<style>{style}</style>", frame, count=1)
    return _SCRIPT.sub(lambda _: f'{data}\n<script type="module">{script}</script>', frame, count=1)


def escaped(book: Book) -> str:
    """JSON in which no character can end the element that holds it."""
    text = msgspec.json.encode(book).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@dataclass(slots=True)
class _Chosen:
    """What is in the book so far."""

    collection: Collection
    room: int
    episodes: dict[str, EpisodeView] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)

    def take(self, name: str, run: int) -> bool:
        """Whether the episode is in the book now. The first one always is."""
        key = f"{name}?run={run}" if run else name
        if key in self.episodes:
            return True
        if self.room <= 0:
            return False
        try:
            view = self.collection.episode(name, str(run))
        except AgentRLError:
            return False  # Damaged: it is listed, and counted as left out.
        shown = dict(self._shown(view))
        size = len(msgspec.json.encode(view)) + sum(map(len, shown.values()))
        if size > self.room and self.episodes:
            return False
        self.room -= size
        self.episodes[key] = view
        self.images |= shown
        return True

    def _shown(self, view: EpisodeView) -> Iterator[tuple[str, str]]:
        for address in (image for step in view.steps for image in step.images):
            try:
                data = self.collection.image(address.rpartition("/")[2])
            except StoreError:
                continue
            if address not in self.images:
                yield address, f"data:{media_type(data)};base64,{base64.b64encode(data).decode()}"


def _inlined(module: str) -> str:
    """A module as a part of one script: no imports, no exports."""
    lines = [line.removeprefix("export ") for line in module.splitlines() if not line.startswith("import ")]
    return "\n".join(lines)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
