"""Captions: descriptions of images, and the prompts made from them."""
