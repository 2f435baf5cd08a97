"""What an analysis returns: a dense array with named, labelled axes, and everything that is needed to read it."""

from mechproc.result.combine import align, stack
from mechproc.result.core import FORMAT, Result
from mechproc.result.labels import Label, Where, in_words, places_in_words

__all__ = ["FORMAT", "Label", "Result", "Where", "align", "in_words", "places_in_words", "stack"]
