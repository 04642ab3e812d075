"""Trackers for agentrl: TensorBoard, Weights & Biases and trackio, each imported only when a recipe names it."""
