"""Shape and expression bases of the procedural head: named controls, ordered by variance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml.flame.procedural.anatomy import Anatomy, Field
from ml.flame.procedural.expression_controls import expression_controls
from ml.flame.procedural.shape_controls import asymmetries, shape_controls
from ml.flame.procedural.surface import EYE_CENTRE, FloatArray, smooth_step
from ml.flame.procedural.topology import Mesh

_VIVACITY = 0.65
"""Random faces do not grimace; 3 is a strong expression."""
NUM_SHAPE_SYMMETRIC = 220
NUM_SHAPE_ANTISYMMETRIC = 80
NUM_EXPRESSION_SYMMETRIC = 64
NUM_EXPRESSION_ANTISYMMETRIC = 36
_FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Basis:
    """Components of one parity each.

    Attributes:
        directions: (V, 3, K) mm per unit coefficient.
        signs: (K,) +1 for symmetric components, -1 for antisymmetric ones: the mirror image of a
            head has the coefficients times these signs.
        names: (K,) effect of each component.
    """

    directions: FloatArray
    signs: FloatArray
    names: tuple[str, ...]


def _waves(
    a: Anatomy, rng: np.random.Generator, count: int, length_mm: tuple[float, float], parity: float
) -> FloatArray:
    """Smooth random fields of one parity, (count, V, 3), root mean square about 1.

    Args:
        a: the anatomy.
        rng: source of the waves.
        count: number of fields.
        length_mm: longest and shortest wave length scale, from the first to the last field.
        parity: +1 symmetric, -1 antisymmetric.
    """
    fields = np.zeros((count, len(a.v), 3))
    lengths = np.geomspace(length_mm[0], length_mm[1], count)
    num_waves = 10
    for k in range(count):
        direction = rng.standard_normal((num_waves, 3)) / lengths[k]
        phase = rng.uniform(0.0, 2.0 * np.pi, num_waves)
        amplitude = rng.standard_normal((num_waves, 3)) * np.sqrt(2.0 / num_waves)
        here = np.cos(a.v @ direction.T + phase) @ amplitude
        there = (np.cos((a.v * _FLIP) @ direction.T + phase) @ amplitude) * _FLIP
        fields[k] = (here + parity * there) * np.sqrt(0.5)
    return fields


def _exact(field: FloatArray, a: Anatomy, parity: float) -> FloatArray:
    """Remove what rounding leaves of the other parity."""
    return 0.5 * (field + parity * field[..., a.mesh.mirror, :] * _FLIP)


def _principal(
    fields: list[Field], count: int, keep_first: int
) -> list[tuple[str, FloatArray, float]]:
    """Return principal components of independent unit-variance controls, largest first.

    Args:
        fields: controls.
        count: components wanted.
        keep_first: number of controls whose names pass to components.

    Returns:
        (name, (V, 3) direction of one standard deviation, its size) triples.
    """
    table = np.stack([f.reshape(-1) for _, f in fields])
    gram = table @ table.T
    values, vectors = np.linalg.eigh(gram)
    order = np.argsort(-values)[:count]
    out = []
    for i in order:
        vector = vectors[:, i]
        strongest = int(np.argmax(np.abs(vector)))
        vector = vector * np.sign(vector[strongest])
        direction = vector @ table
        name = fields[strongest][0] if strongest < keep_first else "smooth field"
        out.append((name, direction.reshape(-1, 3), float(values[i])))
    return out


def shape_basis(mesh: Mesh, rng: np.random.Generator) -> Basis:
    """Return 300 shape components: named controls and smooth random fields, ordered by variance.

    Args:
        mesh: the resting head.
        rng: source of the random fields.

    Returns:
        the basis.
    """
    a = Anatomy(mesh)
    parts_: list[tuple[str, FloatArray, float, float]] = []
    for parity, named, count in (
        (1.0, shape_controls(a), NUM_SHAPE_SYMMETRIC),
        (-1.0, asymmetries(a), NUM_SHAPE_ANTISYMMETRIC),
    ):
        num_waves = count - len(named) + 10
        waves = _waves(a, rng, num_waves, (45.0, 14.0), parity)
        size = np.geomspace(0.22, 0.04, num_waves) * (1.0 if parity > 0 else 0.45)
        calm = (1.0 - 0.7 * smooth_step(a.y, -110.0, -150.0))[:, None]
        every = named + [
            ("smooth field", a.rigid_eyes(w * calm) * s) for w, s in zip(waves, size, strict=True)
        ]
        every = [(name, _exact(field, a, parity)) for name, field in every]
        parts_ += [(n, d, s, parity) for n, d, s in _principal(every, count, len(named))]
    parts_.sort(key=lambda item: -item[2])
    return _basis(a, parts_)


def expression_basis(mesh: Mesh, rng: np.random.Generator) -> Basis:
    """Return 100 expression components: named two- and one-sided movements, then random ones.

    The named ones stay as they are (not mixed by an eigenbasis): a coefficient means a movement.

    Args:
        mesh: the resting head.
        rng: source of the random movements.

    Returns:
        the basis.
    """
    a = Anatomy(mesh)
    symmetric, lopsided = [], []
    for name, field in expression_controls(a):
        field = _exact(a.still_eyes(field) * _VIVACITY, a, 1.0)
        symmetric.append((name, field))
        lopsided.append(
            (f"{name}, left more than right", field * (2.0 * a.left - 1.0)[:, None] * 0.45)
        )
    for name, field in (
        ("jaw to the left", a.shift(a.jaw, x=1.3)),
        ("mouth to the left", a.shift(a.at(0, -47, 12.0, 2.0, 15.0), x=1.2)),
    ):
        lopsided.append((name, field))
    mask = np.maximum.reduce(
        [a.at(0, -47, 15.0, 2.0, 12.0), 0.7 * a.at(28, 36, 10.0, 2.6, 5.0),
         0.6 * a.at(36, -20, 16.0, 1.4, 0.0)]
    ) * (1 - a.ear)  # fmt: skip
    eyes = np.minimum(
        np.linalg.norm(a.v - EYE_CENTRE, axis=1), np.linalg.norm(a.v - EYE_CENTRE * _FLIP, axis=1)
    )
    mask = mask * smooth_step(eyes, 14.0, 24.0)
    items: list[tuple[str, FloatArray, float, float]] = []
    for parity, named, count in (
        (1.0, symmetric, NUM_EXPRESSION_SYMMETRIC),
        (-1.0, lopsided, NUM_EXPRESSION_ANTISYMMETRIC),
    ):
        num = count - len(named)
        waves = _waves(a, rng, num, (26.0, 11.0), parity)
        size = np.geomspace(0.5, 0.12, num) * (1.0 if parity > 0 else 0.5)
        extra = [
            ("small movement", w * s * mask[:, None]) for w, s in zip(waves, size, strict=True)
        ]
        every = [(n, _exact(f, a, parity)) for n, f in named + extra]
        items += [
            (n, f, -float(k) - (0.5 if parity > 0 else 0.0), parity)
            for k, (n, f) in enumerate(every)
        ]
    # named movements first, in their order: both-sided before one-sided
    named_items = [i for i in items if i[0] != "small movement" and i[3] > 0]
    named_items += [i for i in items if i[0] != "small movement" and i[3] < 0]
    rest = sorted(
        (i for i in items if i[0] == "small movement"), key=lambda i: -float((i[1] ** 2).sum())
    )
    return _basis(a, named_items + rest)


def _basis(a: Anatomy, items: list[tuple[str, FloatArray, float, float]]) -> Basis:
    directions = np.stack([d for _, d, _, _ in items], axis=-1)
    signs = np.array([p for _, _, _, p in items])
    return Basis(directions, signs, tuple(n for n, _, _, _ in items))
