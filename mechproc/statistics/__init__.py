"""Tests, intervals and verdicts for scores over a few paired seeds; numpy and scipy only."""
