"""How faces move: a declared population of facial actions over MakeHuman's targets.

Movements of the jaw and of the eyeballs are joints of the head model and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ml.flame.open_head.source import FloatArray, read_targets, target_names

NUM_DRAWS: Final = 20_000
FACE_UNITS: Final = "faceunits01/targets/faceunits"
_UNITS: Final = "mpfb2/targets/expression/units"
_ANCESTRIES: Final = ("african", "asian", "caucasian")
_BY_JOINTS: Final = (
    "eyeLook", "jawOpen", "jawLeft", "jawRight", "mouthClose", "tongueOut", "mouth-open",
)  # fmt: skip
_ACTIVE: Final = 0.18
"""Probability that an action takes part in an expression."""
_STRENGTH: Final = (1.2, 1.8)
"""Parameters of the beta distribution of its strength."""
_SAME_ON_BOTH_SIDES: Final = 0.8
"""Fraction of expressions in which the right side does what the left one does."""


@dataclass(frozen=True)
class Actions:
    """Facial actions and the statistics of their strengths.

    Attributes:
        names: (A,) readable names.
        targets: (A, 19158, 3) dm.
        covariance: (A, A).
    """

    names: tuple[str, ...]
    targets: FloatArray
    covariance: FloatArray


def declare_actions(folder: Path, rng: np.random.Generator) -> Actions:
    """Read the actions' targets and estimate the statistics of their strengths from draws.

    Args:
        folder: the package's data.
        rng: source of the draws.

    Returns:
        The actions.
    """
    paths: list[str] = []
    columns: list[FloatArray] = []
    drawn: dict[str, FloatArray] = {}
    people = rng.dirichlet([1.0] * len(_ANCESTRIES), NUM_DRAWS)
    units = _wanted(target_names(folder, f"{_UNITS}/{_ANCESTRIES[0]}"))
    for path in [*_wanted(target_names(folder, FACE_UNITS)), *units]:
        name = path.rsplit("/", 1)[1]
        strength = _strength(name, drawn, rng)
        drawn[name] = strength
        if path in units:
            for k, ancestry in enumerate(_ANCESTRIES):
                paths.append(f"{_UNITS}/{ancestry}/{name}")
                columns.append(strength * people[:, k])
        else:
            paths.append(path)
            columns.append(strength)
    covariance = np.cov(np.stack(columns, axis=1), rowvar=False)
    names = tuple(_readable(path.rsplit("/", 1)[1]) for path in paths)
    return Actions(names, read_targets(folder, paths), covariance)


def _wanted(paths: list[str]) -> list[str]:
    return [path for path in paths if not path.rsplit("/", 1)[1].startswith(_BY_JOINTS)]


def _strength(name: str, drawn: dict[str, FloatArray], rng: np.random.Generator) -> FloatArray:
    active = rng.random(NUM_DRAWS) < _ACTIVE
    own = active * rng.beta(*_STRENGTH, NUM_DRAWS)
    together = rng.random(NUM_DRAWS) < _SAME_ON_BOTH_SIDES
    for right, left in (("Right", "Left"), ("right", "left")):
        twin = name.replace(right, left)
        if twin != name and twin in drawn:
            return np.where(together, drawn[twin], own)
    return own


def _readable(name: str) -> str:
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name.replace("-", " "))
    plain = words.replace(" left", "").replace(" right", "")
    return "mouth to one side" if plain == "mouth" else plain
