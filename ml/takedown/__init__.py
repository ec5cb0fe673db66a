"""Removal of samples from all files that contain or derive from them."""
