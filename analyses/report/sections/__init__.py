"""Parts of reports, one file for each subject; what was computed for one stands beside it in ``*_findings.py``."""
