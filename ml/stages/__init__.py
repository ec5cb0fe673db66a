"""The stages of the pipeline: one module a stage, named after it, with its configuration and `run`.

Everything else in `ml` is library: stages compose it, and nothing imports a stage but another stage
that continues it.
"""
