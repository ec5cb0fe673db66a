"""One asset, for a web server that is tried without the project."""

import dagster as dg


@dg.asset
def thing() -> None:
    """Nothing."""


defs = dg.Definitions(assets=[thing])
