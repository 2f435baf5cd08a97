"""Studies: one file for each question, each with ``study(scale, seeds) -> Study``, and what they are built from."""

STUDIES = {
    "set-to-haystack": "set_to_haystack",
}
"""Name of a study -> its module; ``mechproc.studies.registry`` loads it."""
