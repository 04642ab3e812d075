"""The one file: what a browser finds in it, what it keeps in, and what it leaves out and says so."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from shown_runs import MARKUP, shown_trajectory, write_shown, write_tokenizer
from typer.testing import CliRunner

from agentrl.cli.main import app
from agentrl.divergence import shown_otherwise
from agentrl.environment import Env, adapt, call
from agentrl.errors import EnvironmentFault, InvalidDataError, StoreError, UnknownNameError
from agentrl.pictures import picture, picture_bytes, picture_name
from agentrl.rollout.guard import GuardedWorld
from agentrl.rollout.limits import EpisodeLimits
from agentrl.store.images import ImageStore, image_size, share_of
from agentrl.store.ledger import Ledger
from agentrl.tools import tool
from agentrl.types import Message, Observation, Task
from agentrl.view.book import save_book
from agentrl.view.pieces import Pieces
from agentrl.view.shapes import Book

JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffc0001108006400c803012200021101031101ffd9")


class Reader(HTMLParser):
    """Elements as a browser cuts them: the text of scripts and styles, and every tag that begins."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inside: list[tuple[str, dict[str, str | None], str]] = []
        self.policy = ""
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        told = dict(attrs)
        if told.get("http-equiv") == "Content-Security-Policy":
            self.policy = told["content"] or ""
        self._open = (tag, told) if tag in ("script", "style") else None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.inside.append((*self._open, data))
            self._open = None


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_shown(tmp_path / "run")
    return tmp_path / "run"


def hashed(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_a_book_holds_what_the_server_answers_and_nothing_breaks_out_of_it(run: Path, tmp_path: Path) -> None:
    book = save_book(run, tmp_path / "out" / "run.html")
    text = (tmp_path / "out" / "run.html").read_text(encoding="utf-8")
    found = Reader(text)
    (data,) = [inner for tag, told, inner in found.inside if told.get("id") == "book"]
    assert json.loads(data) == json.loads(msgspec.json.encode(book))
    assert MARKUP in json.loads(data)["episodes"]["g1-0"]["steps"][0]["shown"][0]["content"]
    assert not re.search("[<>&\u2028\u2029]", data) and "alert(1)" not in text.replace(data, "")
    assert found.tags.count("script") == 2 and "img" not in found.tags and "link" not in found.tags[-3:]
    assert (len(book.lines), len(book.episodes), book.left_out, book.unlisted) == (5, 5, 0, 0)


def test_only_the_pages_own_script_and_style_may_run_in_a_book(run: Path, tmp_path: Path) -> None:
    save_book(run, tmp_path / "run.html")
    found = Reader((tmp_path / "run.html").read_text(encoding="utf-8"))
    script = next(inner for tag, told, inner in found.inside if told.get("type") == "module")
    style = next(inner for tag, _, inner in found.inside if tag == "style")
    assert found.policy.startswith("default-src 'none'; ")
    assert f"script-src '{hashed(script)}'" in found.policy and f"style-src '{hashed(style)}'" in found.policy
    assert "unsafe" not in found.policy and "http" not in found.policy
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    assert "<!--" not in script and "</script" not in script.lower() and "</style" not in style.lower()


def test_a_book_stays_small_and_says_what_it_left_out(run: Path, tmp_path: Path) -> None:
    book = save_book(run, tmp_path / "run.html", first="g2-0", largest=1)
    assert list(book.episodes) == ["g2-0"] and (len(book.lines), book.left_out) == (5, 4)
    with pytest.raises(StoreError, match=r"no episode 'g9' that can be opened"):
        save_book(run, tmp_path / "other.html", first="g9")
    assert not (tmp_path / "other.html").exists()


def test_a_damaged_episode_is_listed_and_left_out(run: Path, tmp_path: Path) -> None:
    payloads = run / "payloads.bin"
    payloads.write_bytes(payloads.read_bytes()[:-20])
    book = save_book(run, tmp_path / "run.html")
    assert len(book.lines) == 5 and book.left_out == 5 - len(book.episodes) > 0


def test_two_runs_in_a_book_name_the_others_episodes_by_run(tmp_path: Path) -> None:
    for name, wins in (("a", ("g2-0",)), ("b", ())):
        write_shown(tmp_path / name, wins=wins)
        (tmp_path / name / "config.toml").unlink()
    book = save_book(tmp_path / "a", tmp_path / "both.html", [tmp_path / "b"])
    assert "g2-0" in book.episodes and "g2-0?run=1" in book.episodes and "g1-0?run=1" not in book.episodes
    assert book.overview.runs == ["a", "b"]


def test_screenshots_travel_in_the_book(run: Path, tmp_path: Path) -> None:
    name = ImageStore(run).put(JPEG)
    seen = shown_trajectory("g4-0", "g4")
    object.__setattr__(seen.steps[0].observation, "images", (name, "0" * 64))
    with Ledger(run) as ledger:
        ledger.issue(4, "g4", Task("task-g4", "keydoor"), ["g4-0"])
        ledger.finish(seen)
    book: Book = save_book(run, tmp_path / "run.html")
    assert book.images == {f"api/image/{name}": f"data:image/jpeg;base64,{base64.b64encode(JPEG).decode()}"}


def test_the_command_writes_a_book(run: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["view", str(run), "--export", str(tmp_path / "x.html")])
    assert told.exit_code == 0 and "5 episodes" in told.output and (tmp_path / "x.html").is_file()
    unknown = CliRunner().invoke(app, ["view", str(run), "--episode", "g9"])
    assert isinstance(unknown.exception, UnknownNameError) and "holds no episode 'g9'" in str(unknown.exception)


def test_the_size_of_an_image_is_read_off_its_header() -> None:
    assert image_size(JPEG) == (200, 100)
    assert image_size(b"GIF89a" + bytes([44, 1, 200, 0])) == (300, 200)
    assert image_size(JPEG[:20]) is None and image_size(b"\x89PNG\r\n\x1a\n") is None


@pytest.mark.parametrize(
    ("x", "y", "size", "share"),
    [
        (30, 10, (60, 40), (0.5, 0.25)),
        (0.5, 0.25, None, (0.5, 0.25)),
        (61, 10, (60, 40), None),
        (-1, 10, (60, 40), None),
        ("30", 10, (60, 40), None),
        (True, 10, (60, 40), None),
        (float("nan"), 10, (60, 40), None),
        (None, None, (60, 40), None),
    ],
)
def test_a_click_is_a_share_of_the_screenshot(x: object, y: object, size: Any, share: Any) -> None:
    assert share_of(x, y, size) == share


def test_images_are_kept_once_and_only_pictures(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    assert store.put(JPEG) == store.put(JPEG) and len(list(store.folder.iterdir())) == 1
    assert store.get(store.put(JPEG)) == JPEG
    for name in ("../config.toml", "0" * 64, ""):
        with pytest.raises(StoreError, match="holds no image"):
            store.get(name)
    with pytest.raises(ValueError, match="are no PNG, JPEG, GIF or WebP image"):
        store.put(b"<svg onload=alert(1)>")


def test_token_text_is_read_from_every_kind_of_tokenizer_file(tmp_path: Path) -> None:
    def pieces(vocab: object, decoder: object) -> Pieces:
        told = {"model": {"vocab": vocab}, "decoder": decoder, "added_tokens": [{"id": 9, "content": "<|end|>"}]}
        (tmp_path / "tokenizer.json").write_text(json.dumps(told), encoding="utf-8")
        return Pieces.load(tmp_path)

    byte_level = pieces({"Ġgo": 0, "Ċ": 1, "â": 2, "Ĥ¬": 3}, {"type": "ByteLevel"})
    assert byte_level.each([0, 1, 2, 3, 9, 77]) == [" go", "\n", "\\xe2", "\\x82\\xac", "<|end|>", "77"]
    assert byte_level.text([0, 2, 3, 9]) == " go€<|end|>"
    unigram = pieces([["▁go", -1.0], ["<0x0A>", -2.0]], {"type": "Metaspace", "replacement": "▁"})
    assert unigram.each([0, 1]) == [" go", "\n"]
    words = pieces({"go": 0, "north": 1}, None)
    assert (words.each([0, 1]), words.text([0, 1, 9])) == (["go", "north"], "go north <|end|>")
    assert (Pieces({}).each([5, 6]), Pieces({}).text([5, 6])) == (["5", "6"], "5 6")
    (tmp_path / "tokenizer.json").write_text("{torn")
    with pytest.raises(StoreError, match="cannot be read as a tokenizer"):
        Pieces.load(tmp_path)


def test_the_words_of_a_run_are_those_of_its_own_tokenizer(tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "m")
    assert Pieces.load(tmp_path / "m").text([3, 4]) == "go north"


def test_a_picture_is_the_same_whole_and_by_name() -> None:
    whole = picture(JPEG)
    name = hashlib.sha256(JPEG).hexdigest()
    assert picture_name(whole) == name == picture_name(name) and picture_bytes(whole) == JPEG
    recorded, now = (Observation((Message("user", "o"),), images=(image,)) for image in (name, whole))
    assert shown_otherwise(0, recorded, now) is None
    assert shown_otherwise(0, recorded, replace(now, images=(picture(JPEG + b"1"),))) is not None
    for wrong in ("data:,x", "data:image/svg+xml;base64,PHN2Zz4=", whole.replace("jpeg", "png"), f"{whole}!"):
        with pytest.raises(InvalidDataError, match="is no picture"):
            picture_name(wrong)


class Screen(Env):
    """A screen to click on, that may show something else than a picture."""

    def __init__(self, *, shows: str = "") -> None:
        self.shows = shows

    def tasks(self, split: str) -> list[Task]:
        return [Task("t", "screen")]

    def reset(self, task: Task) -> Observation:
        self.clicks = 0
        return Observation((Message("user", "click"),), images=(self.shows,) if self.shows else ())

    def screenshot(self) -> bytes:
        return JPEG + bytes([self.clicks])

    @tool
    def click(self, x: int, y: int) -> str:
        """Click at a place, in pixels."""
        self.clicks += 1
        return "clicked"


def guarded(author: Env) -> GuardedWorld:
    return GuardedWorld(adapt(author), Task("t", "screen"), EpisodeLimits(), lambda stage: None)


async def test_an_environments_screenshots_come_after_reset_and_every_action() -> None:
    world = guarded(Screen())
    shown = await world.reset()
    after = (await world.step(call("click", x=20, y=50), shown, 0)).observation
    assert [picture_bytes(image)[-1] for image in (*shown.images, *after.images)] == [0, 1]


async def test_an_environment_that_shows_no_picture_is_at_fault() -> None:
    with pytest.raises(EnvironmentFault, match=r"task 't' showed no picture: 'screen\.png' is no picture"):
        await guarded(Screen(shows="screen.png")).reset()

    class Blind(Screen):
        def screenshot(self) -> bytes:
            return b"<svg>"

    with pytest.raises(
        EnvironmentFault, match=r"Blind\.screenshot returned b'<svg>' .* PNG, JPEG, GIF or WebP, or None"
    ):
        await guarded(Blind()).reset()
