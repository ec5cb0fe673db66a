"""Small sets in the published layouts of the benchmarks, written from exactly known truth."""
