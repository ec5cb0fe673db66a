"""Where the published ground-truth files lie, if they are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "VGGHEADS_REFERENCE"


@pytest.fixture(scope="session")
def reference():
    """The folder of real ground-truth files; they may not be passed on, so it may be absent."""
    named = os.environ.get(VARIABLE, "")
    if not named:
        pytest.skip(f"{VARIABLE} names no folder of published ground truth")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"{VARIABLE} names {folder}, which is no folder")
    return folder
