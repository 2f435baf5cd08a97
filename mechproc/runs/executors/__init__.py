"""Ways to get many runs done."""
