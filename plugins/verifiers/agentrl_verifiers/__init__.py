"""Tasksets written for verifiers: their prompts, their rewards, our policy."""
