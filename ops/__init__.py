"""Dagster ops and jobs for what is not an asset: sync with DVC, checks again, model promotion.

An op gets what it needs as a resource; `dagster_project.definitions` provides them.
"""
