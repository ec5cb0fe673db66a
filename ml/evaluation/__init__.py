"""How good a prediction is: one matcher, one set of metrics, one protocol, one report.

Read `matching.py`, `metrics.py`, `protocol.py`, then `stage.py`.
"""
