"""Comparisons of the paper that train or generate several times: ablation, datasets, generators.

A study composes stages, so it is a layer above them; each has a job in `ops/studies.py` and a
command.
"""
