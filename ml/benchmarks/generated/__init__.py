"""Small sets in the published layouts of the benchmarks, with exact ground truth.

None of the public sets may be redistributed. These show that every reader, protocol and table
works, and what a detector scores on them says nothing about the public sets.
"""
