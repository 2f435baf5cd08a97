"""Studies: one file for each question, each with ``study(scale, seeds) -> Study``, and what they are built from."""

STUDIES = {
    "set-to-haystack": "set_to_haystack",
    "transferable": "transferable",
    "rules-by-task": "rules_by_task",
    "composition": "composition",
    "perturbation": "perturbation",
    "shuffled-data": "shuffled_data",
    "confounders": "confounders",
    "faster-or-better": "faster_or_better",
    "width": "width",
    "which-heads": "which_heads",
    "transfer-map": "transfer_map",
    "language": "language",
    "multiplication": "multiplication",
}
"""Name of a study -> its module; ``mechproc.studies.registry`` loads it."""
