"""Takes the pictures of docs/guides/view.md: `python scripts/screenshots.py RUN [OTHER]`, with a real Chromium.

They show a real run through the real server; which episode is looked at is chosen by rule, never by hand.
"""

from __future__ import annotations

import re
import shutil
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import uvicorn
from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from agentrl.view.book import PAGE
from agentrl.view.collection import Collection
from agentrl.view.server import listen, make_app

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
WINDOW = {"width": 1280, "height": 860}


def main(folders: list[Path]) -> None:
    IMAGES.mkdir(exist_ok=True)
    with Collection(folders) as collection, listen("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(collection, PAGE), log_level="warning"))
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        serving.start()
        try:
            take(f"http://127.0.0.1:{listening.getsockname()[1]}/", quote(telling_episode(collection), safe=""))
        finally:
            server.should_exit = True
            serving.join(20)


def telling_episode(collection: Collection) -> str:
    """The earliest success of few steps in a group of which half failed: there the members were told apart."""
    found = collection.episodes({"outcome": "success", "sort": "batch", "limit": "1000"}).lines
    for line in found:
        group = collection.episode(line.id).group if line.batch is not None and line.steps <= 8 else ()
        if group and 2 * sum(member.outcome == "success" for member in group) <= len(group):
            return line.id
    sys.exit("the run has no short success in a group of which half failed; take one that learned")


def take(home: str, episode: str) -> None:
    with sync_playwright() as driver:
        arguments = ["--no-sandbox"]  # as root, and of a page that is our own
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        for scheme in ("light", "dark"):
            page = browser.new_context(viewport=WINDOW, color_scheme=scheme).new_page()
            if scheme == "light":
                shot(page, f"{home}#/overview", "view-overview")
                shot(page, f"{home}#/episode/{episode}?view=group", "view-group")
                shot(page, f"{home}#/grid", "view-grid")
            else:
                shot(page, f"{home}#/episode/{episode}?lens=advantage", "view-lens")
        browser.close()


def shot(page: Page, address: str, name: str) -> None:
    page.goto("about:blank")  # else only what stands behind the # changes, and the old screen is taken for the new one
    page.goto(address)
    page.locator("main > div").wait_for()
    expect(page.locator(".members td a", has_text=re.compile("^…$"))).to_have_count(0)
    if page.locator(".strip").count():
        page.locator(".tok.plus, .tok.minus").first.hover()
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(200, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit("usage: screenshots.py RUN [OTHER]...")
    main([Path(argument) for argument in sys.argv[1:]])
