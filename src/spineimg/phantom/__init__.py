"""A synthetic spine with known truth."""
