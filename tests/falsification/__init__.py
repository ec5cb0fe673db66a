"""Falsified tables, images and metrics against the suites.

    python -m tests.falsification [PROJECT]

PROJECT is a finished run of the smoke profile (left out: this checkout). It is copied, never
altered. The smoke profile's trainings of seconds label all heads alike, so the copy's labels,
verdicts and metrics are first replaced by those of a run that learned (`run.py`), and judged by
bounds of their own: smoke's for the data, the demo's for labels and metrics. Each falsification
(`faults.py`) is then applied to a copy of its own, as if the stage had written it, and the suites
of the stage are run.
"""
