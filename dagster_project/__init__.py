"""The Dagster project: definitions, partitions, resources, the bridge to DVC, the command line.

Read `stages.py`, then `runner.py` (what surrounds every stage), then `dvc_sync.py`.
"""
