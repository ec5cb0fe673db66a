"""Heads to labels: crops of heads, the FLAME regressor, and the annotation of images with both."""
