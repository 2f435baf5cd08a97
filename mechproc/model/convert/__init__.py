"""Models of other libraries, to and from: GPT-2, HookedTransformer state dicts, TransformerLens bridges."""
