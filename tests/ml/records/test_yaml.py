"""YAML from people: nothing is executed, and a small document does not become a large one."""

import math
import subprocess
import sys

import pytest
from pydantic import ValidationError

from ml.records.config import StageConfig, parse_yaml
from ml.records.limits import MAX_YAML_BYTES

LISTS = "a0: &a0 [x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
"""Twelve lines that mean 10**11 values; printing them, or checking each, never ends."""
MERGED = "a0: &a0 {k: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 10)
)
"""Merging writes the aliases out: 10**9 pairs, 8 GB."""
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 5000))
"""As deep as it is long, though no line of it is: 10**7 values."""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LISTS, "values, with aliases written out, expected at most 1,000,000"),
        (MERGED, "values, with aliases written out, expected at most 1,000,000"),
        (CHAIN, "values, with aliases written out"),
        ("a: &a [*a]", ":1: an alias occurs inside the node"),
        ("a: &a {b: *a}", ":1: an alias occurs inside the node"),
        ("[" * 100_000, "nesting"),
        ("{a: " * 100_000, "nesting"),
        ("a: " + "x" * MAX_YAML_BYTES, "characters, expected at most 4,194,304"),
        ("a: " + "9" * 10_000, "not YAML: Exceeds the limit"),
    ],
    ids=["lists", "merged", "chain", "itself", "own value", "deep", "deep maps", "long", "digits"],
)
def test_bombs_are_refused_in_a_line(text, message):
    # A process of its own: what is not refused takes all memory, and the test run with it.
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED], input=text, capture_output=True, text=True, timeout=60
    )
    assert message in done.stdout
    assert done.stdout.startswith("params.yaml:")
    assert len(done.stdout) < 300
    assert done.returncode == 0


BOUNDED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
from ml.records.config import parse_yaml
try:
    parse_yaml(sys.stdin.read(), "params.yaml")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "text",
    [
        'a: !!python/object/apply:os.system ["touch {}"]',
        "a: !!python/object/new:os.system [touch {}]",
        "a: !!python/name:os.system",
        "a: !!python/module:antigravity",
        "!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [{}]]",
    ],
)
def test_tags_of_objects_are_refused(text, tmp_path):
    target = tmp_path / "made"
    with pytest.raises(ValueError, match=r"x\.yaml:1: could not determine a constructor"):
        parse_yaml(text.format(target), "x.yaml")
    assert not target.exists()


def test_aliases_of_ordinary_size_are_read():
    assert parse_yaml("a: &a {x: 1, y: [2, 3]}\nb: *a\nc: {<<: *a, x: 4}") == {
        "a": {"x": 1, "y": [2, 3]},
        "b": {"x": 1, "y": [2, 3]},
        "c": {"x": 4, "y": [2, 3]},
    }


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_configuration_takes_what_is_not_finite(value):
    class Config(StageConfig):
        weight: float = 1.0

    assert Config(weight=2.5).weight == 2.5
    with pytest.raises(ValidationError, match="finite number"):
        Config(weight=value)
