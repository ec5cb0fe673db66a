"""What is looked at before hours are spent: a profile's models, files, sources, device and disk."""
