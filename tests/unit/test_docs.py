"""What README and docs show works: python runs, recipes load, commands parse, links lead somewhere.

A fence may say more than its language: `file=NAME` writes the block to that file first (later blocks may import it or
name it in a recipe), and `check` holds its environment against `agentrl.testing.check_environment`.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from method_checks import CHECKS

from agentrl import Env, toml
from agentrl.cli.main import app
from agentrl.config import check_parts, load_config
from agentrl.errors import MissingDependencyError
from agentrl.plugins import load_host
from agentrl.testing import check_environment

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path for kind in ("environments", "plugins") for path in (ROOT / kind).glob("*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md")), *PACKAGES]
SMALLEST = {"environment": {"name": "keydoor"}, "model": {"name": "tiny"}}
"What a fragment of a recipe is completed with."
PASSED_ON = {"make", "pip", "python", "git", "cd", "kill"}


@dataclass(frozen=True, slots=True)
class Block:
    page: Path
    line: int
    "Of its first line of text."
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def file(self) -> str:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), "")

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    info: list[str] = []
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start, info = number + 1, line.removeprefix("```").split()
        else:
            text = "\n".join(lines[start:number]) + "\n"
            yield Block(page, start + 1, info[0] if info else "", tuple(info[1:]), text)
            start = None
    assert start is None, f"{page}: the block that begins at line {start} has no end"


def pages_with(*languages: str) -> list[Any]:
    found = [page for page in PAGES if any(block.language in languages for block in blocks_of(page))]
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder from which modules can be imported, and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for module in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


@pytest.mark.parametrize("page", pages_with("python", "toml"))
def test_python_runs_and_recipes_load(page: Path, folder: Path) -> None:
    """In order: blocks of one page share a namespace and a folder."""
    namespace: dict[str, Any] = {"__name__": "a_page"}
    for block in blocks_of(page):
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            run_python(block, namespace)
        elif block.language == "toml":
            load_recipe(block, folder)


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    if block.file:
        importlib.invalidate_caches()
        module = importlib.import_module(Path(block.file).stem)
        namespace.update({key: value for key, value in vars(module).items() if not key.startswith("__")})
        written = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    else:
        # Padded, so that a traceback names the line of the page.
        padded = "\n" * (block.line - 1) + block.text
        before = dict(namespace)
        exec(compile(padded, str(block.page), "exec"), namespace)
        written = [value for key, value in namespace.items() if before.get(key) is not value]
        for function in written:
            if inspect.isfunction(function) and function.__name__.startswith("test_"):
                function()
    if "check" in block.words:
        worlds = [value for value in written if inspect.isclass(value) and issubclass(value, Env)]
        assert worlds, f"{block} is marked `check` and holds no environment"
        for world in worlds:
            report = check_environment(world, tasks=2)
            assert report.ok, f"{block}\n{report}"


def load_recipe(block: Block, folder: Path) -> None:
    table = tomllib.loads(block.text)
    if "project" in table:
        return
    recipe = folder / "recipe.toml"
    recipe.write_text(toml.dump({**SMALLEST, **table}), encoding="utf-8")
    try:
        config = load_config(recipe)
        if block.page in PACKAGES:
            return  # a package's parts are known once it is installed; its own tests hold them
        # A file that the page shows is installed by the time its recipe runs.
        shown = [] if config.plugins else sorted(str(path) for path in folder.glob("*.py"))
        check_parts(config, load_host([*config.plugins, *shown]))
    except MissingDependencyError:
        pass
    except Exception as error:
        raise AssertionError(f"{block}: {error}") from error


@pytest.mark.parametrize("page", pages_with("console", "sh"))
def test_commands_parse(page: Path) -> None:
    for block in blocks_of(page):
        if block.language not in ("console", "sh"):
            continue
        for line in block.text.splitlines():
            if block.language == "console" and not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"\w+=\S*", words[0]):
                words.pop(0)
            if words[:1] == ["make"]:
                assert re.search(rf"^{words[1]}\b.*:", (ROOT / "Makefile").read_text(), re.M), f"{block}: {line}"
            elif words[:1] == ["agentrl"]:
                parse(words[1:], f"{block}: {line}")
            elif words:
                assert words[0] in PASSED_ON, f"{block}: {words[0]!r} is no command that these pages should need"


def parse(words: list[str], place: str) -> None:
    """Hold a command line against the real commands and their options, without running it."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        known = command.commands
        assert words and words[0] in known, f"{place}: no command {words[:1]}; there are {sorted(known)}"
        command, words = known[words[0]], words[1:]
    try:
        command.make_context(command.name, [word for word in words if word not in ("--help", "--debug")])
    except Exception as error:
        raise AssertionError(f"{place}: {getattr(error, 'message', error)}") from error


def test_a_wrong_command_line_is_found() -> None:
    for words in (
        ["trian", "quickstart"],
        ["train"],
        ["train", "quickstart", "--dry"],
        ["env", "check", "x", "--task"],
    ):
        with pytest.raises(AssertionError):
            parse(words, "here")
    parse(["train", "quickstart", "training.batches=5", "--dry-run"], "here")


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [target.partition("#")[0] for target in targets if not re.match(r"\w+:|#", target)]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_decisions_are_numbered_once_and_short() -> None:
    """A number is taken before its record is written, so one may still be on its way; none is taken twice."""
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert len(numbers) == len(set(numbers)) and numbers[0] == 1
    for page in pages:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 40, page.name
        assert lines[0].startswith(f"# {int(page.name[:4])}. "), page.name


def test_a_decision_that_was_superseded_says_by_which() -> None:
    """Both records say it, each with a link to the other."""
    told: dict[str, set[tuple[int, int]]] = {"Supersedes": set(), "Superseded": set()}
    for page in (ROOT / "docs" / "decisions").glob("*.md"):
        for word, other in re.findall(r"^(Supersede[sd])\b[^\n(]*\((\d{4})-", page.read_text(encoding="utf-8"), re.M):
            pair = (int(page.name[:4]), int(other))
            told[word].add(pair if word == "Supersedes" else pair[::-1])
    assert told["Supersedes"] == told["Superseded"] != set()


def test_every_section_of_a_recipe_is_explained() -> None:
    from agentrl.sections import Config

    page = (ROOT / "docs" / "guides" / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in Config.model_fields if name not in page] == []


def test_the_page_of_methods_is_up_to_date() -> None:
    script = importlib.util.spec_from_file_location("methods_page", ROOT / "scripts" / "methods_page.py")
    assert script is not None and script.loader is not None
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    written = module.PAGE.read_text(encoding="utf-8")
    assert module.page() == written, "run: PYTHONPATH=benchmarks:tests/unit python scripts/methods_page.py"


def test_every_method_says_what_was_checked_of_it_and_the_tests_exist() -> None:
    assert sorted(CHECKS) == sorted(entry.name for entry in load_host().entries("methods"))
    named = {(check.file, check.test) for checks in CHECKS.values() for check in checks}
    written = {
        (file, node.name)
        for file in {file for file, _ in named}
        for node in ast.parse((ROOT / "tests" / "unit" / f"{file}.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert sorted(named - written) == []
