"""Find the key, carry it to the door, open the door: a text world whose actions are tool calls."""
