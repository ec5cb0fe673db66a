"""Head boxes drawn by people: COCO files, and the round trip through annotation tools."""
