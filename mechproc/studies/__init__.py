"""One file for each question the paper asks; each builds a ``Study``."""
