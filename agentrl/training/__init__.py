"""The loop, and the learner with its token trees."""
