"""Models: HookedTransformer, its config and weights as a dict, parts, files and conversions."""
