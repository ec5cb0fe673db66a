"""All dependencies of `pip install vggheads` are usable in an Apache-2.0 project, commercially too.

The requirements come from pyproject.toml, theirs from the metadata of what is installed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dagster_project.stages import ROOT

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "ZPL-2.1",
    "Zlib",
    # Copyleft of single files: what we do not change stays as it is.
    "EPL-1.0", "EPL-2.0", "MPL-2.0",
}  # fmt: skip
"""SPDX identifiers, each with its exception."""

NAMES = {
    "MIT": ("MIT License", "The MIT License (MIT)"),
    "Apache-2.0": (
        "Apache 2.0", "Apache License 2.0", "Apache License, Version 2.0", "Apache 2.0 License",
        "Apache License Version 2.0", "Apache Software License",
    ),
    # Without a number of clauses, BSD means the two- or the three-clause one.
    "BSD-3-Clause": (
        "BSD", "BSD License", "New BSD", "3-Clause BSD License", "BSD 3-Clause License",
        "BSD 3-Clause", "BSD 3-Clause OR Apache-2.0",
    ),
    "BSD-2-Clause": ("FreeBSD",),
    "ISC": ("ISC License (ISCL)", "ISC License"),
    "MPL-2.0": ("Mozilla Public License 2.0 (MPL 2.0)",),
    "PSF-2.0": ("Python Software Foundation License",),
    "ZPL-2.1": ("Zope Public License",),
}  # fmt: skip
"""What packages call these licences where they give no SPDX identifier."""
SPDX = {name.lower(): spdx for spdx, names in NAMES.items() for name in (spdx, *names)}

KNOWN = {
    "grandalf": (
        "EPL-1.0",
        "GPLv2 or EPLv1, of which we take the second; DVC draws graphs by it",
    ),
    "huey": ("MIT", "its metadata name none; its LICENSE file is MIT's text"),
    "skops": ("MIT", "its metadata say 'OSI approved' alone; its LICENSE file is MIT's text"),
    "pygit2": (
        "GPL-2.0-only WITH GCC-exception-2.0",
        "its exception allows unlimited linking into programs of any licence; DVC reads Git by it",
    ),
    "nvidia-*": (
        "LicenseRef-NVIDIA",
        "runtime of CUDA, only in the GPU builds of torch; its terms allow use and redistribution",
    ),
    "triton": ("MIT", "comes with the GPU builds of torch; its LICENSE file is MIT's text"),
}
"""Pattern of a package's name -> its licence and why it may stay, where metadata do not tell."""

_REFUSED = re.compile(r"\bA?GPL|GNU|non-?\s?commercial|\bNC\b", re.IGNORECASE)


def installed(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Name -> what is installed of these requirements and theirs, on this platform."""
    found: dict[str, Distribution] = {}
    seen, waiting = set(), [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        found[name] = distribution(name)
        for text in found[name].requires or ():
            needed = Requirement(text)
            extras = ("", *wanted.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(needed)
    return found


def allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met by `ALLOWED`."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.strip())

    def term() -> bool:
        token = tokens.pop(0) if tokens else ""
        if token == "(":
            value = alternatives()
            del tokens[:1]
            return value
        if tokens[:1] == ["WITH"]:
            token = f"{token} WITH {tokens[1]}"
            del tokens[:2]
        return token in ALLOWED

    def together() -> bool:
        value = term()
        while tokens[:1] == ["AND"]:
            tokens.pop(0)
            value = term() and value
        return value

    def alternatives() -> bool:
        value = together()
        while tokens[:1] == ["OR"]:
            tokens.pop(0)
            value = together() or value
        return value

    balanced = expression.count("(") == expression.count(")")
    return alternatives() and not tokens and balanced


def problem(dist: Distribution) -> str | None:
    """Why a package may not be there, with its name and licence; None if it may."""
    name, metadata = canonicalize_name(dist.metadata["Name"]), dist.metadata
    if any(fnmatch(name, pattern) for pattern in KNOWN):
        return None
    expression = metadata.get("License-Expression")
    if expression:
        return None if allowed(expression) else f"{name}: licence {expression!r} is not allowed"
    classifiers = [
        text.split(" :: ")[-1]
        for text in metadata.get_all("Classifier") or ()
        if text.startswith("License ::") and text != "License :: OSI Approved"
    ]
    text = (metadata.get("License") or "").strip()
    said = [*classifiers, *([text] if text and "\n" not in text else [])]
    if any(_REFUSED.search(words) and not allowed(words) for words in said):
        return f"{name}: licence {'; '.join(said)!r} is not allowed"
    # A one-line licence that is no name ("see LICENSE") says less than the classifiers.
    names = classifiers or said
    unknown = [words for words in names if words.lower() not in SPDX and not allowed(words)]
    if not names or unknown:
        return f"{name}: licence {'; '.join(unknown) or 'not stated'!r} is unknown"
    return None


def product():
    """Requirements of what people use: the detector, and the pipeline of a checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = [*project["dependencies"], *extras["predict"], *extras["pipeline"]]
    return [line for line in named if not line.startswith("vggheads[")]


def test_the_default_install_holds_only_permitted_licences():
    found = installed(product())
    assert len(found) > 150, "requirements of requirements were not followed"
    assert {"torch", "dvc", "pygit2", "numpy"} <= set(found)
    assert [text for dist in found.values() if (text := problem(dist))] == []
    assert "smplx" not in found


def test_every_exception_is_still_needed():
    """An exception for a package that states its licence would hide the next one."""
    found = set(installed(product()))
    gpu_builds = {"nvidia-*", "triton"}
    assert set(KNOWN) - gpu_builds <= found
    for spdx, reason in KNOWN.values():
        assert len(reason) > 20, spdx


def test_the_oracle_of_the_layer_would_be_refused():
    assert problem(distribution("smplx")) == "smplx: licence 'UNKNOWN' is unknown"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("License-Expression: MIT", None),
        ("License-Expression: AGPL-3.0-only", "x: licence 'AGPL-3.0-only' is not allowed"),
        ("License-Expression: MIT AND GPL-3.0-only", "is not allowed"),
        ("License-Expression: MPL-2.0 AND (GPL-3.0-only OR MIT)", None),
        ("License-Expression: (GPL-3.0-only OR CC-BY-NC-4.0)", "is not allowed"),
        ("License-Expression: Apache-2.0 WITH LLVM-exception", None),
        ("License-Expression: Apache-2.0 WITH Commons-Clause", "is not allowed"),
        ("License: Apache 2.0", None),
        ("License: EPL-2.0 OR GPL-2.0-or-later\nClassifier: License :: OSI Approved", None),
        ("License: (MIT", "is unknown"),
        ("License: GPLv3", "licence 'GPLv3' is not allowed"),
        ("License: free for non-commercial research", "is not allowed"),
        ("License: MIT\nClassifier: License :: Free for non-commercial use", "is not allowed"),
        ("License: Copyright me\nClassifier: License :: OSI Approved :: MIT License", None),
        ("Classifier: License :: OSI Approved", "x: licence 'not stated' is unknown"),
        ("License: mine", "x: licence 'mine' is unknown"),
        ("Summary: nothing said", "x: licence 'not stated' is unknown"),
    ],
)
def test_licences_of_packages(tmp_path: Path, metadata: str, message: str | None):
    folder = tmp_path / "x-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: x\nVersion: 1.0\n{metadata}\n")
    found = problem(PathDistribution(folder))
    assert (found is None) if message is None else (found is not None and message in found)
