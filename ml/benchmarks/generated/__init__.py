"""Small sets in the published layouts of the benchmarks, from exactly known truth.

None of the public sets may be passed on. These show that every reader, protocol and table works,
and what a detector scores on them says nothing of the public sets.
"""
