"""A shop with a policy, a database and a customer who talks."""
