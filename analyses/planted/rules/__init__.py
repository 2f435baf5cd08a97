"""Rules of planted models that mechproc does not have: small ones, with one answer at the end of each item."""
