"""The head model: parameters, layer, rotations, projection, frames, regions and landmarks."""
