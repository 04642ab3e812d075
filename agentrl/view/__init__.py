"""A run or an evaluation as a page: what was measured, and token by token what was trained."""
