"""The page in a real Chromium: a run that is being written, a file from the disk; nothing in them comes alive."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from page_book import MARKUP as BOOK_MARKUP
from page_book import make_book
from shown_runs import MARKUP, shown_trajectory, write_shown

from agentrl.store.ledger import Ledger
from agentrl.types import Task
from agentrl.view.book import PAGE, bind
from agentrl.view.collection import Collection
from agentrl.view.server import listen, make_app

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `make test` installs it")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is here: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    # Chromium's own sandbox cannot be had by root, as which containers run.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield found
        found.close()


@pytest.fixture
def page(browser: playwright.Browser) -> Iterator[playwright.Page]:
    """A tab that must stay quiet: no error, no refusal by the policy, no dialog, no other machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found, troubles = context.new_page(), list[str]()
    found.set_default_timeout(60_000)
    found.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
    found.on("pageerror", lambda error: troubles.append(str(error)))
    found.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    found.on("request", lambda asked: troubles.append(asked.url) if foreign(asked.url) else None)
    yield found
    context.close()
    assert troubles == []


def foreign(address: str) -> bool:
    return not address.startswith(("http://127.0.0.1:", "file://", "data:"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_shown(tmp_path / "shown")
    return tmp_path / "shown"


@pytest.fixture
def home(run: Path) -> Iterator[str]:
    with Collection([run]) as collection, listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(collection, PAGE), log_level="warning"))
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        serving.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            serving.join(60)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "book.html"
    path.write_text(bind(make_book(), PAGE), encoding="utf-8")
    return path.as_uri()


def at(page: playwright.Page, pattern: str) -> None:
    playwright.expect(page).to_have_url(re.compile(pattern))


def texts(page: playwright.Page, selector: str) -> list[str]:
    return page.locator(selector).all_text_contents()


def test_from_the_verdict_by_a_filter_to_an_episode(page: playwright.Page, home: str) -> None:
    page.goto(home)
    assert page.locator(".sentence").inner_text().startswith("Success rose from 10.0% [2.8, 30.1] to 90.0%")
    page.locator(".bars a", has_text="wrong answer").click()
    at(page, r"#/episodes\?outcome=wrong_answer$")
    playwright.expect(page.locator("tbody tr")).to_have_count(3)
    page.locator(".chip", has_text="success").click()
    playwright.expect(page.locator("tbody tr")).to_have_count(4)
    page.locator("th a", has_text="reward").click()
    playwright.expect(page.locator("tbody tr").first).to_contain_text("success")
    page.locator("tbody tr").first.locator(".task").click()
    at(page, r"#/episode/g1-0$")
    playwright.expect(page.locator(".step[data-step]")).to_have_count(2)
    assert "task-g1" in page.locator("h1").inner_text()


def test_markup_of_an_observation_and_of_a_result_stays_text(page: playwright.Page, home: str) -> None:
    page.goto(f"{home}#/episode/g1-0")
    page.locator(".step").first.wait_for()
    assert f"room 0 {MARKUP}" in texts(page, ".message pre"), "an observation"
    assert f"room 1 {MARKUP}" in texts(page, ".call .came pre"), "a result"
    assert MARKUP in texts(page, ".call .asked pre"), "an argument"
    assert page.locator("main img, main script, main b:has-text('alert')").count() == 0


def test_the_lens_shows_what_was_trained(page: playwright.Page, home: str) -> None:
    page.goto(f"{home}#/episode/g1-0")
    page.locator(".step").first.wait_for()
    page.keyboard.press("l")
    page.keyboard.press("l")
    at(page, "lens=trained")
    assert texts(page, ".strip .tok.on") == ["go", "go", "north"]
    assert texts(page, ".strip .tok.off") == ["north"], "its coefficient was 0"
    assert texts(page, ".strip .tok.prompt")[0] == "<end> door"
    assert "3 of 4 sampled tokens were trained on" in page.locator(".lens-legend").inner_text()
    page.keyboard.press("l")
    at(page, "lens=advantage")
    assert texts(page, ".scale .ends span") == ["−2.5", "0", "+2.5"]
    weights = page.locator(".tok.plus").evaluate_all("all => all.map(one => one.style.getPropertyValue('--w'))")
    assert [float(weight) for weight in weights] == [0.2, 0.6, 1.0]
    page.locator(".strip").last.focus()
    page.keyboard.press("ArrowRight")
    facts = dict(zip(texts(page, ".token-facts dt"), texts(page, ".token-facts dd"), strict=True))
    assert (facts["token"], facts["id"], facts["advantage"]) == ('"north"', "4", "+2.5")
    assert facts["mismatch"] == "+0.5 nats (ratio 1.649)" and facts["logprob"] == "−1.5 nats (22.3%)"


def test_a_run_is_read_with_the_keyboard_alone(page: playwright.Page, home: str) -> None:
    page.goto(f"{home}#/episodes?sort=-reward")
    page.locator("tbody tr").first.wait_for()
    listed = page.locator("tbody tr").evaluate_all("rows => rows.map(row => row.dataset.key)")
    second = listed[1].removeprefix("line-")
    for key in ("j", "j", "k", "Enter"):
        page.keyboard.press(key)
    at(page, r"#/episode/g1-0$")
    page.locator(".step").first.wait_for()
    page.keyboard.press("j")
    page.keyboard.press("j")
    at(page, "step=2")
    playwright.expect(page.locator(".step.current h3")).to_have_text("Step 2")
    page.keyboard.press("]")
    at(page, f"#/episode/{second}")  # of the sorted list that the first was opened from
    playwright.expect(page.locator(".head code")).to_have_text(second)
    page.keyboard.press("[")
    at(page, r"#/episode/g1-0")
    page.keyboard.press("Escape")
    at(page, r"#/episodes\?sort=-reward$")
    page.keyboard.press("?")
    playwright.expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("broke")
    page.keyboard.press("Enter")
    at(page, "search=broke")
    playwright.expect(page.locator("tbody tr")).to_have_count(1)
    page.keyboard.press("1")
    page.locator(".plot .field").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    at(page, r"#/episodes\?batch=\d$")


def test_an_episode_names_the_commands_that_take_it_up_again(page: playwright.Page, home: str, run: Path) -> None:
    page.goto(f"{home}#/episode/g1-0?view=task&step=2")
    page.locator(".command").first.wait_for()
    commands = texts(page, ".command code")
    assert commands[0] == f"agentrl replay rerun {run} g1-0"
    assert f"agentrl replay continue {run} g1-0 --from 1 -m oracle" in commands, "the step of the address, from 0"
    hostile = "a'; rm -rf ~ #\n$(id)"
    word = page.evaluate("async text => (await import('/page/command.js')).shellWord(text)", hostile)
    assert shlex.split(word) == [hostile.replace("\n", "?")], "one word, whatever it says"


def test_members_stand_side_by_side_and_a_shared_step_is_drawn_once(page: playwright.Page, home: str) -> None:
    page.goto(f"{home}#/episode/g1-2?view=branches")
    playwright.expect(page.locator("circle.node")).to_have_count(5)
    playwright.expect(page.locator(".leaf")).to_have_count(3)
    page.locator(".views a", has_text="group of 3").click()
    playwright.expect(page.locator(".members thead th")).to_have_count(4)
    playwright.expect(page.locator(".members td a", has_text="open(")).to_have_count(6)
    members = page.locator(".members thead th[title]").evaluate_all("all => all.map(one => one.title)")
    sides = page.locator(".members tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => cell.className))"
    )
    assert sorted(members) == ["g1-0", "g1-1", "g1-2"]
    for row in sides:
        assert dict(zip(members, row, strict=True)) == {"g1-0": "plus", "g1-1": "untrained", "g1-2": "untrained"}


def test_what_is_written_meanwhile_appears_and_the_place_is_kept(page: playwright.Page, home: str, run: Path) -> None:
    with Ledger(run) as ledger:
        page.goto(f"{home}#/episodes")
        playwright.expect(page.locator("tbody tr")).to_have_count(5)
        playwright.expect(page.locator("#live")).to_be_visible()
        page.keyboard.press("j")
        page.keyboard.press("j")
        ledger.issue(2, "g3", Task("task-g3", "keydoor"), ["g3-0"])
        ledger.finish(shown_trajectory("g3-0", "g3", reward=1.0))
        playwright.expect(page.locator("tbody tr")).to_have_count(6)
        playwright.expect(page.locator("tr.current")).to_contain_text("task-g1")
    playwright.expect(page.locator("#live")).to_be_hidden()


def test_a_wrong_address_is_answered_in_words_and_leaves_the_ways_back(page: playwright.Page, file: str) -> None:
    page.goto(f"{file}#/episode/%3Cb%3Enobody")
    playwright.expect(page.locator(".trouble")).to_contain_text("episode <b>nobody is not in this file")
    page.locator("#tabs a", has_text="overview").click()
    playwright.expect(page.locator(".plot")).to_have_count(9)


def test_a_file_from_the_disk_is_the_whole_page(page: playwright.Page, file: str) -> None:
    page.goto(file)
    playwright.expect(page.locator(".plot")).to_have_count(9)
    page.locator(".bars a", has_text="success").click()
    playwright.expect(page.locator(".pager")).to_contain_text("1 to 90 of 90")
    assert page.locator("tr.left-out a").count() == 0, "what the file does not hold is listed, and opens nothing"
    page.locator("tr.opens").first.click()
    at(page, r"#/episode/g000-0$")
    picture = page.locator(".picture").first
    box, ring = picture.bounding_box(), picture.locator(".click").bounding_box()
    assert box and ring
    across = (ring["x"] + ring["width"] / 2 - box["x"]) / box["width"]
    assert across == pytest.approx(0.42, abs=0.02), "the ring lies where the action clicked"
    assert page.locator(".picture img").first.evaluate("img => img.naturalWidth") == 320
    assert any(BOOK_MARKUP in text for text in texts(page, ".message pre"))
    assert page.evaluate("window.hacked") is None and page.locator("main script").count() == 0
    page.keyboard.press("3")
    playwright.expect(page.locator("tbody tr").first).to_have_class("flipped")
    page.goto(f"{file}#/episode/g000-1?lens=mismatch&step=3")
    playwright.expect(page.locator(".step.current h3")).to_have_text("Step 3")
    assert page.locator(".tok.plus").count() > 10 and page.locator(".tok.minus").count() > 10


@pytest.mark.parametrize("place", ["overview", "episodes", "grid", "episode/g000-1", "episode/g000-1?lens=logprob"])
def test_nothing_runs_out_of_a_narrow_window(page: playwright.Page, file: str, place: str) -> None:
    page.set_viewport_size({"width": 800, "height": 900})
    page.goto(f"{file}#/{place}")
    page.locator("main > *").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
