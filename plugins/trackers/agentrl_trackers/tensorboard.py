"""Metrics as TensorBoard event files. A restarted run adds a file; TensorBoard joins them by update."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.event_file_writer import EventFileWriter


class TensorboardTracker:
    """`folder` is the run's; event files go to `tensorboard` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder) / "tensorboard"
        self._writer: EventFileWriter | None = None

    def start(self, run: str, config: Mapping[str, Any]) -> None:
        self._writer = EventFileWriter(str(self.folder))
        text = f"```json\n{json.dumps(config, indent=2, default=str)}\n```"
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=TensorShapeProto())
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._add(0, Summary.Value(tag=f"{run}/config", metadata=metadata, tensor=tensor))

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        self._add(update, *(Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, update: int, *values: Any) -> None:
        if self._writer is None:
            raise RuntimeError("the TensorBoard tracker is closed or was never started.")
        self._writer.add_event(Event(wall_time=time.time(), step=update, summary=Summary(value=values)))
        self._writer.flush()
