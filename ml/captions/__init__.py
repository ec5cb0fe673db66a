"""Captions: what an image shows, in words, and the prompt made of them."""
