"""Records on disk: ids, tables, image shards, exclusions, lineage and the asset register.

The bottom layer: numpy, pandas and pyarrow only. Read `workspace.py`, then `tables.py`.
"""
