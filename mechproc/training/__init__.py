"""Training: one readable loop and what it is made of. Needs torch; transformer_lens is never imported."""
