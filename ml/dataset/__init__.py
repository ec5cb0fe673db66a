"""Description of the filtered dataset: splits, statistics and card."""
