"""One HTML page with text, tables and figures: self-contained, no network requests.

``document`` is what a report consists of, ``page`` renders it, ``sections`` are parts of pages about one subject.
"""

from analyses.report.document import Report
from analyses.report.tables import seed_table

__all__ = ["Report", "seed_table"]
