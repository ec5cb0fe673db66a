"""Diffusion generators: pipelines of the diffusers library behind the one generator interface."""
