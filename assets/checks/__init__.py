"""Great Expectations suites on the tables and on dataset statistics.

A stage's suites are in the module of its name. `suite.py` says what a suite is, `shared.py` holds
checks that several tables have in common, `custom.py` expectations of our own, `tables.py` and
`statistics.py` make the tables that are judged, `validation.py` runs a suite. Suites run inside
their asset, before anything is recorded.
"""
