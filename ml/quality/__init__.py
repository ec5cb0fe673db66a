"""Whether data is what it should be: accounts, invariants, distributions, bounds and drift.

Everything here takes tables of one shard and gives back findings: what was judged, and what is
wrong with it. Checks that gate a stage are made of them in `assets/checks`.
"""
