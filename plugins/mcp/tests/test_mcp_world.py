"""A real MCP server over its standard streams: fresh for each episode, graded by a function, never by a made-up 0."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="mcp is not installed (pip install 'agentrl-mcp[mcp]')")

from agentrl_mcp.world import McpWorld

from agentrl import Action, EnvironmentFault, Task, call, say

SERVER = Path(__file__).parent / "ledger_server.py"
REWARD = """
async def reward(played):
    kept = await played.ask("read", {"name": played.task.data["key"]})
    right = kept == str(played.task.data["number"])
    return {"reward": float(right and played.answer == "done"), "calls": len(played.calls)}

def broken(played):
    return "much"

def written(played):
    path = played.folder / "c.txt"
    return float(path.exists() and path.read_text().strip() == "9")
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    lines = [
        {"id": "one", "prompt": "Keep 7 under x.", "key": "x", "number": 7},
        {"id": "held", "prompt": "Keep 8 under y.", "key": "y", "number": 8, "split": "test"},
    ]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (tmp_path / "grade.py").write_text(REWARD)
    return tmp_path


def world(files: Path, reward: str = "reward", **options: object) -> McpWorld:
    return McpWorld(
        tasks=str(files / "tasks.jsonl"),
        reward=f"{files / 'grade.py'}:{reward}",
        command=[sys.executable, str(SERVER), "{folder}"],
        **options,  # type: ignore[arg-type]
    )


def task(files: Path, split: str = "train") -> Task:
    return next(iter(world(files).tasks(split)))


async def test_tools_come_from_the_server_and_the_reward_from_what_is_left_there(files: Path) -> None:
    made = world(files, only=["write", "read"])
    try:
        shown = await made.reset(task(files))
        assert shown.messages[0].content == "Keep 7 under x."
        assert [(tool.name, sorted(tool.parameters["properties"])) for tool in made.tools()] == [
            ("write", ["name", "number"]),
            ("read", ["name"]),
        ]
        result = await made.step(call("write", name="x", number=7))
        assert result.observation.messages[0].content == "x is 7" and not result.terminated
        ended = await made.step(say("done"))
        assert ended.terminated and ended.reward == 1.0 and ended.scores == {"success": 1.0, "calls": 1.0}
        folder = made._folder
        again = await made.reset(task(files, "test"))
        assert again.messages[0].content == "Keep 8 under y." and folder is not None and not folder.exists()
        missing = await made.step(call("read", name="x"))
        assert missing.policy_error == "Error executing tool read", (
            "the second episode must not see the first one's file"
        )
    finally:
        await made.close()
    await made.close()


async def test_mistakes_are_told_to_the_model(files: Path) -> None:
    made = world(files)
    try:
        await made.reset(task(files))
        unknown = await made.step(call("wriet", name="x", number=7))
        assert unknown.policy_error.startswith("no tool is called 'wriet'. Did you mean 'write'?")
        for wrong in (call("write", name="x", number="seven"), call("write", name="7", number=7)):
            result = await made.step(wrong)
            assert result.policy_error and result.observation.messages[0].content == result.policy_error
    finally:
        await made.close()


@pytest.mark.parametrize(("tool", "words"), [("die", "is lost"), ("hang", "is lost")])
async def test_a_server_that_dies_or_hangs_is_a_fault(files: Path, tool: str, words: str) -> None:
    made = world(files, deadline=0.5 if tool == "hang" else 30.0)
    try:
        await made.reset(task(files))
        with pytest.raises(EnvironmentFault, match=words):
            await made.step(call(tool))
    finally:
        await made.close()
    assert _left() == []


async def test_a_long_answer_is_cut_with_a_note_and_the_episode_goes_on(files: Path) -> None:
    made = world(files)
    try:
        await made.reset(task(files))
        flooded = await made.step(call("flood", characters=2_000_000))
        (message,) = flooded.observation.messages
        assert len(message.content) < 20_100 and not flooded.policy_error
        assert message.content.endswith("x\n[cut: 2,000,000 characters, the first 20,000 are shown]")
        assert (await made.step(call("write", name="x", number=7))).observation.messages[0].content == "x is 7"
        assert (await made.step(say("done"))).reward == 1.0
    finally:
        await made.close()


def _left() -> list[Path]:
    """Servers of these tests that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(SERVER).encode() in (entry / "cmdline").read_bytes():
                found.append(entry)
        except OSError:
            continue
    return found


async def test_a_server_behind_an_address_is_used_and_left_running(files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port, handed = listening.getsockname()[1], listening.fileno()
        command = (sys.executable, str(SERVER), str(files), str(handed))
        process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL, pass_fds=(handed,))
    reward = f"{files / 'grade.py'}:reward"
    made = McpWorld(tasks=str(files / "tasks.jsonl"), reward=reward, url=f"http://127.0.0.1:{port}/mcp")
    try:
        await made.reset(task(files))
        await made.step(call("write", name="x", number=7))
        ended = await made.step(say("done"))
        assert ended.reward == 1.0 and (files / "x").read_text() == "7"
        await made.close()
        assert process.returncode is None
    finally:
        await made.close()
        process.terminate()
        await process.wait()


async def test_a_command_that_is_no_server_is_a_fault_with_its_name(files: Path) -> None:
    made = McpWorld(
        tasks=str(files / "tasks.jsonl"),
        reward=f"{files / 'grade.py'}:reward",
        command=["no-such-server"],
    )
    try:
        with pytest.raises(EnvironmentFault, match="`no-such-server` is lost"):
            await made.reset(task(files))
    finally:
        await made.close()


async def test_a_reward_that_is_no_number_is_a_fault(files: Path) -> None:
    made = world(files, "broken")
    try:
        await made.reset(task(files))
        with pytest.raises(EnvironmentFault, match="returned 'much'"):
            await made.step(say("done"))
    finally:
        await made.close()


async def test_a_cancelled_episode_closes_its_server(files: Path) -> None:
    made = world(files)
    await made.reset(task(files))
    waiting = asyncio.create_task(made.step(call("hang")))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await made.close()
    assert _left() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "one of command and url"),
        ({"command": ["x"], "url": "http://127.0.0.1:1"}, "one of command and url"),
        ({"command": ["x"], "tasks": "nowhere.jsonl"}, "'nowhere.jsonl', which is no file"),
        ({"command": ["x"], "reward": "nowhere:at_all"}, "which is no function"),
    ],
)
def test_bad_options_are_refused_in_words(files: Path, options: dict[str, object], words: str) -> None:
    given = {"tasks": str(files / "tasks.jsonl"), "reward": f"{files / 'grade.py'}:reward"} | options
    with pytest.raises(ValueError, match=words):
        McpWorld(**given)  # type: ignore[arg-type]


def test_a_broken_line_is_named(files: Path) -> None:
    (files / "tasks.jsonl").write_text('{"prompt": "a"}\n{"prompt": 3}\n')
    with pytest.raises(ValueError, match="line 2, is no task"):
        list(world(files).tasks("train"))


def _installed(npm: str, place: Path, package: str) -> subprocess.CompletedProcess[str]:
    command = [npm, "install", "--silent", "--prefix", str(place), package]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
async def test_a_server_written_by_others_is_used_as_tools(files: Path, tmp_path: Path) -> None:
    """The filesystem server of the protocol's own project, from npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    place = tmp_path / "node"
    package = "@modelcontextprotocol/server-filesystem"
    try:
        got = await asyncio.to_thread(_installed, npm, place, package)
    except subprocess.TimeoutExpired as error:
        pytest.skip(f"npm does not answer: {error}")
    if got.returncode:
        pytest.skip(f"npm cannot install {package}: {got.stderr[-200:]}")
    program = place / "node_modules" / ".bin" / "mcp-server-filesystem"
    line = {"prompt": "Add.", "files": {"a.txt": "4", "b.txt": "5"}}
    (files / "tasks.jsonl").write_text(json.dumps(line))
    made = McpWorld(
        tasks=str(files / "tasks.jsonl"), reward=f"{files / 'grade.py'}:written", command=[str(program), "{folder}"]
    )
    try:
        await made.reset(task(files))
        assert {"read_text_file", "write_file"} <= {tool.name for tool in made.tools()}
        assert made._folder is not None
        shown = await made.step(call("read_text_file", path=str(made._folder / "a.txt")))
        assert shown.observation.messages[0].content == "4"
        refused = await made.step(call("read_text_file", path="/etc/passwd"))
        assert "denied" in refused.policy_error.lower()
        await made.step(call("write_file", path=str(made._folder / "c.txt"), content="9"))
        ended = await made.step(Action(text="done"))
        assert ended.reward == 1.0 and ended.scores["success"] == 1.0
    finally:
        await made.close()


async def test_what_a_server_logged_before_it_ended_is_in_the_fault(files: Path) -> None:
    made = McpWorld(
        tasks=str(files / "tasks.jsonl"),
        reward=f"{files / 'grade.py'}:reward",
        command=[sys.executable, "-c", "import sys; sys.exit('no token: set LEDGER_TOKEN')"],
    )
    try:
        with pytest.raises(EnvironmentFault, match=r"is lost: .* It wrote last: no token: set LEDGER_TOKEN"):
            await made.reset(task(files))
    finally:
        await made.close()
