"""Runs: one training each, its identity, its folder and its record."""
