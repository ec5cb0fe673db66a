"""Training of the one-pass mesh detector: its Lightning module, initialisation, model card."""
