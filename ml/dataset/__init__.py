"""The dataset: labels, splits, samples and augmentation for training, statistics and card."""
