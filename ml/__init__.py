"""The vggheads library: head model, data generation, detection, training and evaluation.

Knows no orchestrator. Import the subpackage you need; importing `ml` itself loads nothing heavy.
"""
