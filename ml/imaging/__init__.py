"""Images and boxes: the one image reader, letterbox, box geometry, rasteriser and grids."""
