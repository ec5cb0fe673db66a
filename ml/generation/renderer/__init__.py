"""The embedded image generator: people, places and light rendered with exact ground truth."""
