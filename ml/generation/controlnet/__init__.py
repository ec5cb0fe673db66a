"""A ControlNet conditioned on PNCC maps of heads (paper, appendix F): its data and training."""
