"""Captions: what a picture shows, in words, and the prompt made of them."""
