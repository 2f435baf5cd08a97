"""Runs, studies and what may be said of them. The statistics need numpy and scipy only."""
