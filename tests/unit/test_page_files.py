"""The page is safe and whole by its files alone: no markup from data, no other machine, modules that join into one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "agentrl" / "view" / "page"
ORDER = (PAGE / "ORDER").read_text(encoding="utf-8").split()
MODULES = {name: (PAGE / name).read_text(encoding="utf-8") for name in ORDER}
IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "\./([\w.]+)";$', re.MULTILINE)
DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)
MARKUP = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function"
)


def test_every_module_is_listed_after_what_it_imports() -> None:
    """So the static file can hold them joined: a list of names is all that a bundler needs."""
    assert sorted(ORDER) == sorted(path.name for path in PAGE.glob("*.js"))
    for place, name in enumerate(ORDER):
        lines = [line for line in MODULES[name].splitlines() if line.startswith("import ")]
        found = IMPORT.findall(MODULES[name])
        assert len(found) == len(lines), f"{name}: an import stands on one line of its own, names in braces"
        for names, module in found:
            assert module in ORDER[:place], f"{name} imports {module}, which comes later in ORDER"
            exported = re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", MODULES[module], re.MULTILINE)
            assert set(names.split(", ")) <= set(exported), f"{name} imports what {module} does not export"


def test_no_two_modules_declare_one_name() -> None:
    declared = [(found, name) for name, text in MODULES.items() for found in DECLARED.findall(text)]
    names = [found for found, _ in declared]
    assert [pair for pair in declared if names.count(pair[0]) > 1] == []


@pytest.mark.parametrize("name", ORDER)
def test_data_never_becomes_markup(name: str) -> None:
    assert re.findall(MARKUP, MODULES[name]) == []


def test_elements_are_made_in_one_place() -> None:
    """There links and pictures are checked, and text becomes text nodes."""
    assert [name for name in ORDER if "createElement" in MODULES[name]] == ["dom.js"]


def test_nothing_is_asked_of_another_machine_and_nothing_is_inline() -> None:
    frame, style = ((PAGE / name).read_text(encoding="utf-8") for name in ("index.html", "style.css"))
    for text in (*MODULES.values(), frame, style):
        addresses = set(re.findall(r"https?://[^\s'\"]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, "the name of SVG's elements is the only address"
    assert re.findall(r"@import|url\(", style) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", frame) == []
    assert re.findall(r"<script[^>]*>", frame) == ['<script type="module" src="page/app.js">']


def test_the_modules_stay_short() -> None:
    assert {path.name: lines for path in PAGE.iterdir() if (lines := len(path.read_text().splitlines())) > 400} == {}
