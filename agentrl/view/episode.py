"""One episode as the page opens it: its steps with tokens, calls and results, and its group beside it.

Text is handed over as it was recorded; what belongs to nobody else (images, trees) is named, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agentrl.errors import InvalidDataError, StoreError
from agentrl.store.images import ImageStore, share_of
from agentrl.store.reader import FolderReader
from agentrl.store.records import Trained
from agentrl.store.rows import EpisodeRow
from agentrl.types import Message, Observation, Step, ToolCall, Trajectory
from agentrl.view.lens import Lens
from agentrl.view.pieces import Pieces
from agentrl.view.shapes import Call, EpisodeView, Neighbour, Said, Seconds, StepView

TREE = "accessibility_tree"
"Name of the message by which an environment shows one."
LARGEST_GROUP = 64
"Members that are shown side by side."


def view_episode(
    reader: FolderReader, images: ImageStore, pieces: Pieces, name: str, group: Sequence[Neighbour]
) -> EpisodeView:
    """Beside `group`, its neighbours. Raises `StoreError` where none has ended, or where its payload is damaged."""
    trajectory = reader.trajectory(name)
    row = next(reader.rows("id = ?", (name,)))
    lens = Lens(trajectory, _taught(reader, name))
    shared = len(trajectory.steps) - len(trajectory.own)
    later: list[Observation | None] = [*(step.observation for step in trajectory.steps[1:]), trajectory.final]
    steps = [
        StepView(
            id=step.id,
            index=step.index,
            shown=said(step.observation),
            prompt=pieces.text(step.prompt),
            prompt_tokens=len(step.prompt),
            tokens=lens.tokens(place, step, pieces),
            text=step.action.text,
            reasoning=step.action.reasoning,
            calls=_calls(step, after),
            error=step.error,
            reward=step.reward,
            scores=step.scores,
            seconds=Seconds(step.timings.waiting, step.timings.model, step.timings.environment, step.timings.reward),
            started=step.timings.started,
            images=[f"api/image/{image}" for image in step.observation.images],
            marks=_marks(step, images),
            tree="\n".join(m.content for m in step.observation.messages if m.name == TREE),
            anchor=step.anchor,
            shared=place < shared,
            source=step.source.value,
        )
        for place, (step, after) in enumerate(zip(trajectory.steps, later, strict=True))
    ]
    return EpisodeView(
        line=row,
        task=msgspec.to_builtins(trajectory.task),
        steps=steps,
        final=said(trajectory.final),
        group=group,
        given=trajectory.given,
        previous=_beside(reader, name, "<", "DESC"),
        next=_beside(reader, name, ">", "ASC"),
    )


def neighbours(reader: FolderReader, group: str) -> list[Neighbour]:
    """The members of a group that have ended. A branch has no place of its own: it comes behind those that have one."""
    members = reader.rows("grp = ?", (group,), f"member < 0, member, rowid LIMIT {LARGEST_GROUP}")
    return [_neighbour(reader, member) for member in members]


def said(observation: Observation | None) -> list[Said]:
    """The messages of an observation, its accessibility tree left out."""
    if observation is None:
        return []
    return [Said(m.role, _content(m), m.name) for m in observation.messages if m.name != TREE]


def _content(message: Message) -> str:
    calls = [f"{call.name} {msgspec.json.encode(call.arguments).decode()}" for call in message.tool_calls]
    return "\n".join(part for part in (message.content, *calls) if part)


def _calls(step: Step, after: Observation | None) -> list[Call]:
    """Each call with the message that answered it: by id where calls have one, else by place."""
    answers = [message for message in after.messages if message.role == "tool"] if after else []
    found = []
    for place, call in enumerate(step.action.tool_calls):
        result = _answer(answers, place, call)
        wrong = bool(step.error) and (len(step.action.tool_calls) == 1 or (bool(result) and result in step.error))
        found.append(Call(call.name, call.arguments, result, wrong))
    return found


def _answer(answers: Sequence[Message], place: int, call: ToolCall) -> str:
    for message in answers:
        if call.id and message.call_id == call.id:
            return message.content
    return answers[place].content if place < len(answers) else ""


def _marks(step: Step, images: ImageStore) -> list[tuple[float, float]]:
    """Where calls with an `x` and a `y` point to in the screenshot that was shown before them."""
    if not step.observation.images:
        return []
    size = images.size(step.observation.images[-1])
    found = [share_of(call.arguments.get("x"), call.arguments.get("y"), size) for call in step.action.tool_calls]
    return [mark for mark in found if mark is not None]


def _taught(reader: FolderReader, name: str) -> list[Trained]:
    """Nothing where it cannot be read: the episode is worth showing without it."""
    try:
        return reader.trained(name)
    except (StoreError, InvalidDataError):
        return []


def _neighbour(reader: FolderReader, row: EpisodeRow) -> Neighbour:
    """Without steps where its payload is damaged: one torn member does not hide the others."""
    step_ids: list[str] = []
    advantages: list[float | None] = []
    try:
        trajectory: Trajectory = reader.trajectory(row.id)
        step_ids = [step.id for step in trajectory.steps]
        advantages = Lens(trajectory, _taught(reader, row.id)).step_advantages()
    except (StoreError, InvalidDataError):
        pass
    return Neighbour(row.id, row.outcome, row.reward, row.steps, row.forked_from, step_ids, advantages)


def _beside(reader: FolderReader, name: str, sign: str, direction: str) -> str | None:
    place = "(SELECT rowid FROM trajectories WHERE id = ?)"
    found = reader.query(
        f"SELECT id FROM trajectories WHERE payload IS NOT NULL AND rowid {sign} {place} "
        f"ORDER BY rowid {direction} LIMIT 1",
        (name,),
    )
    return found[0][0] if found else None
