"""Dagster assets, one module per stage, and the checks that gate them.

An asset is a few lines that pass a configuration to `ml` and return its report. What all stages
have in common (shards, resumption, checks, DVC, MLflow) is in `dagster_project`.
"""
