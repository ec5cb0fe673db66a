"""What the tests of several packages share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def procedural_head():
    """The embedded head model, built once: it takes a few seconds."""
    from ml.flame.procedural import build_procedural_head

    return build_procedural_head(0)
