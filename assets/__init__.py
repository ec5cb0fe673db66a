"""Dagster's software-defined assets, one module a stage, and the checks that gate them.

An asset is a few lines: configuration in, one call into `ml`, a report out. What surrounds every
stage (shards, resume, checks, DVC, MLflow) is in `dagster_project`.
"""
