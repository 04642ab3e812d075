"""Who samples tokens, and how new weights reach them."""
