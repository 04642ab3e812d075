"""Credit: from rewards to an advantage per step. Pure functions of the step table."""
