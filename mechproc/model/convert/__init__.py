"""Conversions from and to other libraries, and to equivalent weights (``folding``)."""
