"""Great Expectations suites on the tables and on dataset statistics.

`suite.py` says what a suite is, `suites.py` holds them, `tables.py` makes the tables they judge,
`validation.py` runs them. They run inside their asset, before anything is recorded.
"""
