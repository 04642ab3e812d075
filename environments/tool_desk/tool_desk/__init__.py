"""Office requests that take several tools: look up, compute, book, answer."""
