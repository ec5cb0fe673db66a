"""Where the published ground-truth files lie, if they are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def reference():
    """The folder of real ground-truth files; they may not be passed on, so it may be absent."""
    named = os.environ.get("VGGHEADS_REFERENCE")
    folder = Path(named) if named else ROOT.parent / "shared" / "reference"
    if not folder.is_dir():
        pytest.skip(f"no published ground truth at {folder}; VGGHEADS_REFERENCE may name it")
    return folder
