"""Taking samples out of everything that was made of them."""
