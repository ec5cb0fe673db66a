"""The lock and the lowest versions fit what pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(extra):
    """Requirements of the project with an extra, those of nested extras included."""
    extras = PROJECT["optional-dependencies"]
    found, open_, seen = list(map(Requirement, PROJECT["dependencies"])), [extra], set()
    while open_:
        name = open_.pop()
        if name in seen:
            continue
        seen.add(name)
        for text in extras[name]:
            requirement = Requirement(text)
            if requirement.name == PROJECT["name"]:
                open_ += requirement.extras
            else:
                found.append(requirement)
    return found


def pinned(name):
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def test_the_lock_holds_all_of_the_development_environment():
    lock = pinned("lock")
    assert len(lock) > 200
    for requirement in declared("dev"):
        version = lock.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked: `make lock`"
        assert requirement.specifier.contains(version, prereleases=True), (requirement, version)


def test_the_lowest_versions_are_those_that_are_declared():
    lowest = pinned("lowest")
    by_name = {}
    for requirement in declared("predict"):
        by_name.setdefault(canonicalize_name(requirement.name), []).append(requirement.specifier)
    for name, specifiers in by_name.items():
        bounds = [
            Version(one.version) for every in specifiers for one in every
            if one.operator in (">=", "==", "~=")
        ]  # fmt: skip
        assert bounds, f"{name} has no lower bound"
        assert all(every.contains(lowest[name]) for every in specifiers), name
        # The first release of the declared series: 4.10 is 4.10.0.82.
        bound = max(bounds)
        assert lowest[name].release[: len(bound.release)] == bound.release, (name, lowest[name])


@pytest.mark.parametrize("name", ["lock", "lowest"])
def test_no_place_of_a_package_is_named(name):
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert not re.search(r"(?m)^[^#]*(://|^-|file:|@)", text)


EXACT = re.compile(r"^[^#]*?\b([A-Za-z][\w.-]*)(?:\[\w+\])?==")


def reasons(text):
    """Yield every exact pin and the comment that covers it: beside it, or above its entries."""
    comment, above = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            comment = [*comment, line] if above else [line]
            above = True
            continue
        above = False
        if found := EXACT.search(line):
            beside = line.partition("#")[2]
            yield found[1], beside or "\n".join(comment), bool(beside)


@pytest.mark.parametrize(
    "path",
    [
        "pyproject.toml",
        *(f"requirements/{n}.txt" for n in ("anny", "gliner", "tracks", "super_gradients")),
    ],
)
def test_every_exact_pin_has_its_reason(path):
    text = (ROOT / path).read_text()
    pins = list(reasons(text))
    assert len(pins) == len(re.findall(r"(?m)^[^#\n]*==", text))
    assert pins
    for name, comment, beside in pins:
        # Above several entries, the comment names those that it is about.
        word = re.split(r"[_-]", name.lower())[0]
        assert comment, name
        assert beside or path != "pyproject.toml" or word in comment.lower(), (name, comment)
