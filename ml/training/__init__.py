"""Training machinery shared by every trained model: tracking, optimiser, loop, callbacks."""
