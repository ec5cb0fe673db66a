"""Image generation: from a skeleton, a caption's scene and a seed to an image.

The embedded backend is a renderer with exact ground truth. Read `renderer.py`, then `stage.py`.
"""
