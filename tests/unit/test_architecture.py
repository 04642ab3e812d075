"""ARCHITECTURE.md says what is there, and the library keeps the rules that no other tool checks."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
LIBRARY = sorted((ROOT / "agentrl").rglob("*.py"))
SOURCES = sorted(
    path
    for folder in ("agentrl", "environments", "plugins", "scripts", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
MAY_IMPORT_TORCH = (
    "losses/",
    "training/",
    "merging.py",
    "rewards/prm",
    "rewards/progress",
    "rewards/step_model",
    "engines/transformers",
    # Imported by vLLM's own processes, or inside functions.
    "engines/vllm_buffer",
    "engines/vllm_fingerprint",
    "engines/vllm_scheduler",
    "engines/vllm_seeds",
    "engines/vllm_worker",
)
HEAVY = {"torch", "transformers", "vllm", "peft", "safetensors"}
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(body: list[ast.stmt] | ast.Module) -> Iterator[str]:
    """Modules that are imported by statements of `body` (a module: anywhere in it), type checking left out."""
    nodes = body if isinstance(body, list) else list(ast.walk(body))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_path_on_the_page_exists() -> None:
    quoted = set(re.findall(r"`([\w./-]+(?:\.(?:py|toml|md)|/[\w-]*|\.importlinter))`", PAGE))
    linked = set(re.findall(r"\]\(([^)#]+)\)", PAGE))
    paths = {path for path in quoted | linked if not path.startswith("http")}
    assert len(paths) > 40, "the pattern no longer finds the paths"
    missing = [path for path in paths if not (ROOT / path).exists() and not (ROOT / "agentrl" / path).exists()]
    assert not missing


def test_every_package_and_module_has_a_place_in_the_table() -> None:
    table = PAGE.partition("| in `agentrl/` |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([\w.]+/?)`", table))
    there = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "agentrl").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - named == {"__init__.py"}


def test_every_test_on_the_page_exists() -> None:
    wanted = set(re.findall(r"`(test_\w+)`", PAGE))
    written = {
        node.name
        for path in SOURCES
        if path.name.startswith("test_")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(wanted) > 15
    assert wanted <= written, f"no such tests: {sorted(wanted - written)}"


def test_files_and_functions_stay_short() -> None:
    long = {name(path): lines for path in LIBRARY if (lines := path.read_text(encoding="utf-8").count("\n")) > 400}
    for path in LIBRARY:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 80:
                    long[f"{name(path)}:{node.name}"] = lines
    assert not long, f"above 400 lines a file or 80 a function: {long}. Which second noun moved in?"


def test_every_library_file_says_what_it_is_for() -> None:
    silent = [path for path in LIBRARY if path.stat().st_size and not ast.get_docstring(tree(path))]
    assert [name(path) for path in silent] == []


def test_no_file_leaves_work_for_later() -> None:
    marks = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    assert [name(path) for path in SOURCES if marks.search(path.read_text(encoding="utf-8"))] == []


def test_one_module_talks_http() -> None:
    talking = [name(path) for path in LIBRARY if any(m.split(".")[0] == "httpx" for m in imports(tree(path)))]
    assert talking == ["agentrl/engines/http.py"]


def test_heavy_libraries_are_imported_at_the_top_only_where_they_are_the_point() -> None:
    """Elsewhere they are imported inside functions; `.importlinter` says who must not import them at all."""
    found = [
        name(path)
        for path in LIBRARY
        if any(module.split(".")[0] in HEAVY for module in imports(tree(path).body))
        and not str(path.relative_to(ROOT / "agentrl")).startswith(MAY_IMPORT_TORCH)
    ]
    assert found == []


def test_parts_do_not_reach_the_plugin_host() -> None:
    """Registration is for the start of a run: what works per token or per step cannot see it."""
    parts = ("rollout", "engines", "rendering", "credit", "losses", "store", "tasks", "training", "evaluation")
    host = {"agentrl.plugins", "agentrl.hooks", "agentrl.registration", "agentrl.discovery", "pluggy"}
    reaching = [
        name(path)
        for part in parts
        for path in (ROOT / "agentrl" / part).rglob("*.py")
        if host & set(imports(tree(path)))
    ]
    assert reaching == []


def test_nothing_is_unpickled_and_no_remote_code_runs() -> None:
    for path in LIBRARY:
        module = tree(path)
        assert not UNSAFE & {found.split(".")[0] for found in imports(module)}, name(path)
        for node in ast.walk(module):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("trust_remote_code", "False") == "False", f"{name(path)}:{node.lineno}"
            assert given.get("allow_pickle", "False") == "False", f"{name(path)}:{node.lineno}"
            if ast.unparse(node.func) == "torch.load":
                assert given.get("weights_only") == "True", f"{name(path)}:{node.lineno}"


def test_environments_and_plugins_use_public_names_only() -> None:
    """A package outside of the library imports what has no underscore in its name."""
    private = [
        f"{name(path)}: {node.module}.{alias.name}"
        for folder in ("environments", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "agentrl"
        for alias in node.names
        if alias.name.startswith("_") or "._" in (node.module or "")
    ]
    assert private == []
