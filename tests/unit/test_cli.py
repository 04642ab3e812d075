"""The command line as a user meets it: exit codes, error text, and what is never imported at start."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from agentrl.cli.listing import kind_called
from agentrl.cli.main import run

HEAVY = ("torch", "transformers", "httpx", "rich", "pydantic", "numpy")
RECIPE = '[environment]\nname = "desk"\n[model]\nname = "tiny"\n'


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    return int(caught.value.code or 0)


def in_process(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)


def test_importing_agentrl_and_its_help_load_nothing_heavy() -> None:
    done = in_process(
        "import sys, agentrl\n"
        "from agentrl.cli.main import run\n"
        "try: run(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"print('LOADED', [m for m in {HEAVY} if m in sys.modules])"
    )
    assert done.stdout.endswith("LOADED []\n"), done.stdout + done.stderr
    for command in ("list", "train", "sft", "eval", "play", "env", "new", "models", "config"):
        assert f"\n  {command} " in done.stdout


def test_listing_loads_no_torch() -> None:
    done = in_process(
        "import sys\nfrom agentrl.cli.main import run\nrun(['list', '--help']) if 0 else None\n"
        "from agentrl.cli.listing import print_entries\nprint_entries(None, [])\n"
        "print('LOADED', [m for m in ('torch', 'transformers', 'httpx') if m in sys.modules])"
    )
    assert done.stdout.endswith("LOADED []\n"), done.stdout + done.stderr


@pytest.mark.parametrize("group", [[], ["env"], ["new"], ["models"], ["config"], ["train"], ["play"], ["env", "check"]])
def test_every_command_has_help(group: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*group, "--help") == 0
    assert "Usage: agentrl" in capsys.readouterr().out


def test_an_error_is_one_block_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("config", "show", "no-such-recipe") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: no recipe is called 'no-such-recipe'.")
    assert "Traceback" not in said.err


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    from agentrl.errors import UnknownNameError

    for words in (["--debug", "config", "explain", "nothing"], ["config", "explain", "nothing", "--debug"]):
        with pytest.raises(UnknownNameError, match="a recipe has no key 'nothing'"):
            run(words)


def test_an_error_that_is_not_the_recipes_fault_exits_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("list", "--plugin", "no_such_plugin_anywhere") == 1
    assert "cannot be imported: ModuleNotFoundError" in capsys.readouterr().err


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_behind_the_output_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with redirect_stdout(Full()):
        assert exit_code("config", "explain", "seed") == 1
    assert capsys.readouterr().err.startswith("error: [Errno 28] No space left on device. Free space")
    with pytest.raises(OSError, match="No space left"), redirect_stdout(Full()):
        run(["config", "explain", "seed", "--debug"])


def test_a_wrong_usage_exits_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("train") == 2
    assert exit_code("no-such-command") == 2
    assert "No such command 'no-such-command'" in capsys.readouterr().err


def test_list_shows_state_version_and_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("list", "method") == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == ["kind", "name", "distribution", "version", "state"]
    (gigpo,) = [line.split() for line in lines if " gigpo " in line]
    assert gigpo[:2] + gigpo[2:3] + gigpo[4:5] == ["methods", "gigpo", "agentrl-framework", "ok"]


def test_kinds_are_known_by_short_and_singular_words() -> None:
    words = ["envs", "environment", "rewards", "loss", "strategy", "context-policy", "plugins", "nonsense"]
    kinds = [
        "environments",
        "environments",
        "reward_models",
        "losses",
        "strategies",
        "context_policies",
        "plugins",
        "nonsense",
    ]
    assert [kind_called(word) for word in words] == kinds


def test_a_broken_plugin_leaves_the_command_line_alive(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("import no_such_module_here\n")
    info = tmp_path / "acme_faulty-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-faulty\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text("[agentrl]\nfaulty = faulty\n")
    code = "from agentrl.cli.main import run\nrun(['list', 'plugins'])"
    done = in_process(code, path=tmp_path)
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "faulty" in line]
    assert line.split()[:5] == ["plugins", "faulty", "acme-faulty", "1.5", "broken"]
    assert "ModuleNotFoundError: No module named 'no_such_module_here'" in line


COMMANDS = """
def greet(name: str, loud: bool = False):
    'Say hello.'
    print('HELLO' if loud else 'hello', name)

def odd(thing: 'no_such_name'): pass
"""
POINTS = """
[agentrl.commands]
greet = acme_tool:greet
odd = acme_tool:odd
far = acme_far_tool:go
broken = faulty:go
[agentrl]
faulty = faulty
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["greet", "Ada", "--loud"], 0, "HELLO Ada\n"),
        (["greet", "--help"], 0, "Say hello."),
        (["--help"], 0, "Commands of plugins:\n  broken "),
        (["gret"], 2, "No such command 'gret'. Did you mean 'greet'?"),
        (["odd"], 1, "error: the command 'odd' of acme-tool cannot be read:"),
        (["far"], 1, "'far' needs acme_far, which is not installed. Run: pip install \"acme-tool[distance]\""),
        (["broken"], 1, "error: the command 'broken' of acme-tool cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_plugin_brings_commands_and_a_broken_one_breaks_no_other(
    words: list[str], code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "acme_tool.py").write_text(COMMANDS)
    (tmp_path / "acme_far_tool.py").write_text("import acme_far\n")
    (tmp_path / "faulty.py").write_text("1 / 0\n")
    info = tmp_path / "acme_tool-1.0.dist-info"
    info.mkdir()
    told = "Metadata-Version: 2.1\nName: acme-tool\nVersion: 1.0\nProvides-Extra: distance\n"
    (info / "METADATA").write_text(told)
    (info / "entry_points.txt").write_text(POINTS)
    done = in_process(f"from agentrl.cli.main import run\nrun({words!r})", path=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in " ".join((done.stdout + done.stderr).split(" ")) and "Traceback" not in done.stderr


def test_config_show_checks_the_parts_of_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, plugin = tmp_path / "desk.toml", tmp_path / "desk_plugin.py"
    recipe.write_text(RECIPE)
    plugin.write_text(
        "def agentrl_environments(): return {'desk': lambda *, size=1: size}\n"
        "def agentrl_engines(): return {'fake': lambda: None}\n"
    )
    more = ["engine=fake", "--plugin", str(plugin)]
    assert exit_code("config", "show", str(recipe), *more, "environment.size=2") == 0
    assert '[environment]\nname = "desk"\nsize = 2\n' in capsys.readouterr().out
    assert exit_code("config", "show", str(recipe), *more, "environment.sise=2") == 2
    assert "[environment] has no key 'sise'. Did you mean 'size'?" in capsys.readouterr().err


def test_config_explain_says_type_default_and_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("config", "explain", "rollout.group_size") == 0
    assert capsys.readouterr().out.splitlines() == [
        "rollout.group_size  (whole number, >= 1, default 8)",
        "  Trajectories per task.",
    ]


def test_ctrl_c_exits_with_130(tmp_path: Path) -> None:
    plugin = tmp_path / "waits.py"
    plugin.write_text("import time\nprint('waiting', flush=True)\ntime.sleep(30)\n")
    code = f"from agentrl.cli.main import run\nrun(['list', '--plugin', {str(plugin)!r}])"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said.strip()) == (130, "interrupted")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--version"])
    assert capsys.readouterr().out == "agentrl 0.1.0\n"
