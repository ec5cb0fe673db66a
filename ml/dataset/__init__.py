"""What the filtered dataset is: its splits, statistics and card."""
