"""Models, one family a file: pixels in [0, 1] in, logits out, normalisation inside."""
