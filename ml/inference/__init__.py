"""Using a trained detector: loading, predicting and drawing."""
