"""The Dagster project: definitions, partitions, resources, the bridge to DVC, the command line.

Read `stages.py`, then `factory.py` (what surrounds every stage), then `dvc_sync.py`.
"""
