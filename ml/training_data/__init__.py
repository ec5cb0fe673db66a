"""From labelled images to training batches: samples, augmentation, mosaics, loaders."""
