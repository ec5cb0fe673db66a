"""Body poses: COCO-17 skeletons, where they come from, and how they are drawn."""
