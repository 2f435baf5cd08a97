"""What may be said of scores over a few paired seeds; numpy and scipy only."""
