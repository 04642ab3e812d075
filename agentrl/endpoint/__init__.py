"""The policy behind an OpenAI-compatible API: what an agent asks becomes the steps of an episode."""
