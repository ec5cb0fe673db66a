"""How people's heads differ: a declared population over MakeHuman's targets, and its components.

A head of the population is the base mesh plus targets with random weights: age, sex, ancestry,
muscle and weight as MakeHuman mixes them, and details of every part of the head. Of the weights
only their mean and covariance matter, since the head model is linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ml.flame.open_head.source import BaseMesh, FloatArray, read_targets, target_names

NUM_DRAWS: Final = 20_000
MACRO: Final = "mpfb2/targets/macrodetails"
_AGES: Final = ("baby", "child", "young", "old")
_AGE_ANCHORS: Final = (0.0, 0.1875, 0.5, 1.0)
"""MakeHuman's: one, about twelve, twenty-five and ninety years."""
ANCESTRIES: Final = ("african", "asian", "caucasian")
_LEVELS: Final = ("min", "average", "max")
_CHILDREN: Final = 0.12
"""Fraction of the population below twenty-five."""
DETAIL_STD: Final = {
    "head": 0.18, "forehead": 0.18, "eyebrows": 0.25, "eyes": 0.24, "nose": 0.28, "mouth": 0.24,
    "cheek": 0.26, "chin": 0.26, "ears": 0.22, "neck": 0.14, "asym": 0.12,
}  # fmt: skip
"""Standard deviation of a detail's strength, 1 being the strongest that MakeHuman offers."""
_SIDE_STD: Final = 0.25
"""Standard deviation of the difference between left and right, relative to that of both."""
_OPPOSITES: Final = (
    ("-decr", "-incr"), ("-down", "-up"), ("-in", "-out"), ("-backward", "-forward"),
    ("-concave", "-convex"), ("-compress", "-uncompress"), ("-l", "-r"),
)  # fmt: skip
_NOT_SHAPE: Final = (
    "asymm-", "head-trans-", "head-angle-", "neck-trans-", "mouth-trans-in", "mouth-trans-out",
    "nose-trans-in", "nose-trans-out",
)  # fmt: skip
"""Targets that move the head on the body, a part across the face, or belong to the body."""


@dataclass(frozen=True)
class Population:
    """Targets and the statistics of their weights.

    Attributes:
        names: (T,) target names.
        targets: (T, 19158, 3) dm.
        mean: (T,) mean weight.
        covariance: (T, T).
    """

    names: tuple[str, ...]
    targets: FloatArray
    mean: FloatArray
    covariance: FloatArray


def declare_population(folder: Path, base: BaseMesh, rng: np.random.Generator) -> Population:
    """Read the targets and estimate the statistics of their weights from draws.

    Args:
        folder: the package's data.
        base: the base mesh.
        rng: source of the draws.

    Returns:
        The population.
    """
    macro_names, macro_weights = _macro_draws(rng)
    detail_names, detail_weights = _detail_draws(folder, rng)
    weights = np.concatenate([macro_weights, detail_weights], axis=1)
    names = (*macro_names, *detail_names)
    targets = read_targets(folder, names)
    return Population(names, targets, weights.mean(axis=0), np.cov(weights, rowvar=False))


def _hat(values: FloatArray, anchors: tuple[float, ...]) -> FloatArray:
    """Return (N, K) weights of linear interpolation between anchors."""
    return np.stack([np.interp(values, anchors, row) for row in np.eye(len(anchors))], axis=1)


def _macro_draws(rng: np.random.Generator) -> tuple[list[str], FloatArray]:
    n = NUM_DRAWS
    child = rng.random(n) < _CHILDREN
    age = np.where(child, rng.uniform(0.05, 0.5, n), 0.5 + 0.5 * rng.beta(1.1, 1.7, n))
    male = rng.beta(0.6, 0.6, n)
    muscle = np.clip(rng.normal(0.5, 0.16, n), 0.0, 1.0)
    weight = np.clip(rng.normal(0.52, 0.20, n), 0.0, 1.0)
    ancestry = rng.dirichlet([0.6] * len(ANCESTRIES), n)
    ages = _hat(age, _AGE_ANCHORS)
    sexes = np.stack([male, 1.0 - male], axis=1)
    muscles, weights = (_hat(x, (0.0, 0.5, 1.0)) for x in (muscle, weight))
    names, columns = [], []
    for s, sex in enumerate(("male", "female")):
        for a, stage in enumerate(_AGES):
            both = sexes[:, s] * ages[:, a]
            for k, people in enumerate(ANCESTRIES):
                names.append(f"{MACRO}/{people}-{sex}-{stage}")
                columns.append(both * ancestry[:, k])
            for i, strong in enumerate(_LEVELS):
                for j, heavy in enumerate(_LEVELS):
                    names.append(f"{MACRO}/universal-{sex}-{stage}-{strong}muscle-{heavy}weight")
                    columns.append(both * muscles[:, i] * weights[:, j])
    return names, np.stack(columns, axis=1)


def _detail_draws(folder: Path, rng: np.random.Generator) -> tuple[list[str], FloatArray]:
    names, columns = [], []
    drawn: dict[str, FloatArray] = {}
    for part, std in DETAIL_STD.items():
        every = [
            name for name in target_names(folder, f"mpfb2/targets/{part}")
            if not name.rsplit("/", 1)[1].startswith(_NOT_SHAPE)
        ]  # fmt: skip
        for name in every:
            other = _opposite(name, every)
            if other in drawn:
                drawn[name] = -drawn[other]
            else:
                drawn[name] = std * _draw(name, drawn, rng)
            names.append(name)
            columns.append(np.clip(drawn[name], 0.0, 1.0))
    return names, np.stack(columns, axis=1)


def _draw(name: str, drawn: dict[str, FloatArray], rng: np.random.Generator) -> FloatArray:
    """Return standard normal draws; a detail on the right follows that on the left."""
    own = rng.standard_normal(NUM_DRAWS)
    head, _, tail = name.rpartition("/")
    left = f"{head}/l-{tail[2:]}"
    if not tail.startswith("r-") or left not in drawn:
        return own
    std = DETAIL_STD[head.rsplit("/", 1)[1]]
    return drawn[left] / std + _SIDE_STD * own


def _opposite(name: str, every: list[str]) -> str | None:
    for pair in _OPPOSITES:
        for one, other in (pair, pair[::-1]):
            found = name[: -len(one)] + other
            if name.endswith(one) and found in every:
                return found
    return None
