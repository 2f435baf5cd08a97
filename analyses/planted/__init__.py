"""Planted models: models whose answer is known because it was put there."""
