"""Plugin of the mutation tests: which tests use what a fixture of a module or session ran.

mutmut runs a mutant with the tests that called its function. What such a fixture calls, it counts
for the first test alone that uses the fixture; the others, which judge the same result, would not
run. Here it counts for all of them.

While mutmut notes which functions a test calls, processes that the test starts are not part of it:
they would look for mutmut's settings in their own folder, and fail.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

import pytest
from mutmut.state import state

_called: defaultdict[str, set[str]] = defaultdict(set)


def pytest_configure() -> None:
    """Keep the mode out of the environment; mutmut remembers it in this process, too."""
    if os.environ.get("MUTANT_UNDER_TEST") == "stats":
        del os.environ["MUTANT_UNDER_TEST"]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> Iterator[None]:
    """Note the functions that a fixture shared by several tests calls."""
    if fixturedef.scope == "function":
        return (yield)
    called = state()._stats
    before = called.copy()
    called.clear()
    try:
        return (yield)
    finally:
        _called[fixturedef.argname] |= called
        called |= before


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Function) -> None:
    """Count these functions for every test that uses the fixture, before mutmut reads them."""
    for name in item.fixturenames:
        state()._stats.update(_called[name])
