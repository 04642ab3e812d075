"""What this package registers: three trackers, each with the extra that brings its library."""

from __future__ import annotations

from collections.abc import Mapping

import agentrl


@agentrl.hookimpl
def agentrl_trackers() -> Mapping[str, agentrl.Lazy]:
    return {
        "tensorboard": agentrl.Lazy(
            "agentrl_trackers.tensorboard:TensorboardTracker",
            requires=("tensorboard",),
            extra="tensorboard",
            summary="event files in the run folder, without TensorFlow or torch",
        ),
        "wandb": agentrl.Lazy(
            "agentrl_trackers.wandb:WandbTracker",
            requires=("wandb",),
            extra="wandb",
            summary="Weights & Biases, online or offline",
        ),
        "trackio": agentrl.Lazy(
            "agentrl_trackers.trackio:TrackioTracker",
            requires=("trackio",),
            extra="trackio",
            summary="a local dashboard",
        ),
    }
