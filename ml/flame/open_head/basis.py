"""Principal components of declared populations, in mirror-symmetric and antisymmetric parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ml.flame.open_head.source import FloatArray, IntArray

_FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Basis:
    """Orthogonal components, ordered by variance.

    Attributes:
        directions: (V, 3, K), displacement of one standard deviation.
        signs: (K,) +1 symmetric, -1 antisymmetric.
        names: (K,) the control that has most to do with a component.
        mixes: (K, T) strengths of the controls of which a component consists.
    """

    directions: FloatArray
    signs: FloatArray
    names: tuple[str, ...]
    mixes: FloatArray


def principal_components(
    controls: FloatArray,
    covariance: FloatArray,
    labels: tuple[str, ...],
    mirror: IntArray,
    count: int,
) -> Basis:
    """Return the components of a population that is as often mirrored as not.

    Mirroring makes symmetric and antisymmetric displacements uncorrelated: each part has its own
    components, and every component is exactly of one parity.

    Args:
        controls: (T, V, 3) displacement of each control at full strength.
        covariance: (T, T) of the controls' strengths.
        labels: (T,) their names.
        mirror: (V,) vertex on the other side.
        count: components wanted, of both parities together.

    Returns:
        the largest components.

    Raises:
        ValueError: the controls span fewer dimensions.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    found: list[tuple[float, float, FloatArray, str]] = []
    for parity in (1.0, -1.0):
        part = 0.5 * (controls + parity * controls[:, mirror] * _FLIP)
        flat = part.reshape(len(part), -1)
        products = flat @ flat.T
        sizes, mixes = np.linalg.eigh(root.T @ products @ root)
        for size, mix in zip(sizes[::-1][:count], mixes.T[::-1][:count], strict=True):
            if size <= 1e-9 * sizes[-1]:
                break
            strengths = root @ mix
            shares = strengths * (products @ strengths)
            strongest = int(np.argmax(shares))
            sign = 1.0 if strengths[strongest] >= 0 else -1.0
            found.append((float(size), parity, sign * strengths, labels[strongest]))
    if len(found) < count:
        raise ValueError(f"open head: {len(found)} components, expected {count}")
    found.sort(key=lambda item: -item[0])
    chosen = found[:count]
    signs = np.array([parity for _, parity, _, _ in chosen])
    mixes = np.stack([mix for _, _, mix, _ in chosen])
    directions = np.tensordot(mixes, controls, axes=1)
    directions = 0.5 * (directions + signs[:, None, None] * directions[:, mirror] * _FLIP)
    names = tuple(name for _, _, _, name in chosen)
    return Basis(np.moveaxis(directions, 0, -1), signs, names, mixes)
