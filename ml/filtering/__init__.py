"""The consistency rules that decide which generated images stay in the dataset."""
