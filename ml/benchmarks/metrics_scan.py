"""Distances of face scans from predicted meshes: the protocols of Feng et al. and of NoW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml.benchmarks.alignment import Similarity, fit_similarity
from ml.benchmarks.scores import RESAMPLES, Scores, score_heads
from ml.benchmarks.surface import Surface

SCAN_PROTOCOLS = ("feng", "now", "now_robust", "now_metrical")
RADIUS_FACTOR = {"feng": 1.2, "now": 1.4, "now_robust": 1.4, "now_metrical": 1.4}
#: What the refinement minimises: NoW's own code the sum of squared distances, which hair and other
#: outliers of the scan draw; see `scipy.optimize.least_squares`.
REFINEMENT_LOSS = {"now": "linear", "now_robust": "soft_l1", "now_metrical": "linear"}
LOSS_MM = 1.0
BIN_MM = 0.01
LARGEST_MM = 50.0
_BINS = round(LARGEST_MM / BIN_MM)
# Rows of the seven landmarks.
_OUTER_RIGHT, _INNER_RIGHT, _INNER_LEFT, _OUTER_LEFT, _NOSE = range(5)


@dataclass(frozen=True)
class MeshPrediction:
    """A predicted face.

    Attributes:
        vertices: (V, 3) any unit and place; millimetres for `now_metrical`.
        faces: (F, 3) triangles.
        seven: (7, 3) right eye outer, inner, left eye inner, outer, nose bottom, mouth right, left,
            in the frame of the vertices.
    """

    vertices: np.ndarray
    faces: np.ndarray
    seven: np.ndarray


@dataclass(frozen=True)
class ScanErrors:
    """Distances of one scan, and the alignment of the mesh with it.

    Attributes:
        distances_mm: (N,) of the scan's vertices inside the radius, unsigned.
        alignment: predicted mesh to scan.
        mirrored: whether the public tools would have mirrored this mesh, as their similarity of the
            seven landmarks may do.
    """

    distances_mm: np.ndarray
    alignment: Similarity
    mirrored: bool


def face_radius(landmarks_mm: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
    """Return the ball inside which scan vertices count.

    Args:
        landmarks_mm: (7, 3) of the scan.
        factor: 1.2 for Feng et al., 1.4 for NoW.

    Returns:
        (3,) its centre, above the nose's lower end by 0.3 of the way to the bridge; its radius,
        factor times the mean of the distance of the outer eye corners and the length of the nose.
    """
    bottom = landmarks_mm[_NOSE]
    bridge = (landmarks_mm[_INNER_RIGHT] + landmarks_mm[_INNER_LEFT]) / 2
    eyes = np.linalg.norm(landmarks_mm[_OUTER_RIGHT] - landmarks_mm[_OUTER_LEFT])
    nose = np.linalg.norm(bridge - bottom)
    return bottom + 0.3 * (bridge - bottom), float(factor * (eyes + nose) / 2)


def crop_scan(vertices_mm: np.ndarray, landmarks_mm: np.ndarray, factor: float) -> np.ndarray:
    """Return which vertices of a scan count.

    Args:
        vertices_mm: (V, 3).
        landmarks_mm: (7, 3).
        factor: as in :func:`face_radius`.

    Returns:
        (N,) positions of the vertices inside the ball, its surface included.
    """
    centre, radius = face_radius(landmarks_mm, factor)
    return np.flatnonzero(np.linalg.norm(vertices_mm - centre, axis=1) <= radius)


def scan_errors(
    vertices_mm: np.ndarray,
    landmarks_mm: np.ndarray,
    prediction: MeshPrediction,
    protocol: str,
) -> ScanErrors:
    """Return distances of a scan from the surface of a predicted mesh.

    The mesh is brought to the scan by the seven landmarks, for NoW then by the distances as well.

    Args:
        vertices_mm: (V, 3) of the scan.
        landmarks_mm: (7, 3) of the scan.
        prediction: the mesh.
        protocol: `feng` (similarity of the landmarks only), `now` (then refined by the squared
            distances), `now_robust` (refined by a loss that outliers hardly move), or
            `now_metrical` (as `now`, but without scale).

    Returns:
        The distances, each exact to rounding.

    Raises:
        ValueError: there is no such protocol, arrays do not fit, or no vertex is inside the radius.
    """
    if protocol not in SCAN_PROTOCOLS:
        raise ValueError(f"scan protocol: expected one of {SCAN_PROTOCOLS}, got {protocol!r}")
    points = vertices_mm[crop_scan(vertices_mm, landmarks_mm, RADIUS_FACTOR[protocol])]  # (N, 3) mm
    if len(points) == 0:
        raise ValueError(
            f"scan: none of its {len(vertices_mm)} vertices is near its landmarks; expected both "
            "in millimetres and in one frame"
        )
    scaled = protocol != "now_metrical"
    landmarks = np.asarray(prediction.seven, np.float64), np.asarray(landmarks_mm, np.float64)
    alignment = fit_similarity(*landmarks, scaled=scaled)
    # counted only; no mesh is mirrored here
    mirrored = fit_similarity(*landmarks, scaled=scaled, may_mirror=True).mirrors
    surface = Surface(prediction.vertices, prediction.faces)
    if protocol != "feng":
        loss = REFINEMENT_LOSS[protocol]
        alignment = refine(surface, points, alignment, scaled=scaled, loss=loss)
    distances, _, _ = _distances(surface, points, alignment)
    return ScanErrors(distances, alignment, mirrored)


def refine(
    surface: Surface,
    points_mm: np.ndarray,
    start: Similarity,
    *,
    scaled: bool = True,
    loss: str = "linear",
) -> Similarity:
    """Minimise a scan's unsigned distances from a mesh over the mesh's pose.

    Args:
        surface: the mesh.
        points_mm: (N, 3) points of the scan.
        start: initial mesh-to-scan similarity.
        scaled: whether the scale is free.
        loss: as in `scipy.optimize.least_squares`; distances over `LOSS_MM` count less with any but
            `linear`.

    Returns:
        The best similarity from mesh to scan.
    """
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

    centre = points_mm.mean(axis=0)

    def moved(step: np.ndarray) -> Similarity:
        # The step rotates and scales about the scan's centre, which decouples its parts.
        rotation, factor = Rotation.from_rotvec(step[:3]).as_matrix(), float(np.exp(step[6:].sum()))
        shift = factor * rotation @ (start.translation - centre) + centre + step[3:6]
        return Similarity(factor * start.scale, rotation @ start.rotation, shift)

    last: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}

    def both(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        key = step.tobytes()
        if key not in last:
            last.clear()
            distances, closest, towards = _distances(surface, points_mm, moved(step))
            lever = closest - centre - step[3:6]
            # The nearest point slides along the surface only, so it counts as fixed to the mesh.
            # Jacobian of each distance by rotation (3), shift (3) and log scale (1): the nearest
            # point moves by d, the distance shrinks by its part along `towards`.
            columns = [-_rotation_derivative(step[:3], lever, towards), -towards]
            if scaled:
                columns.append(-(towards * lever).sum(axis=1, keepdims=True))
            last[key] = distances, np.concatenate(columns, axis=1)
        return last[key]

    result = least_squares(
        lambda step: both(step)[0],
        np.zeros(7 if scaled else 6),
        jac=lambda step: both(step)[1],
        loss=loss,
        f_scale=LOSS_MM,
        x_scale="jac",
        xtol=1e-6,
        ftol=1e-8,
    )
    return moved(result.x)


def _distances(
    surface: Surface, points: np.ndarray, alignment: Similarity
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distances, nearest points and unit vectors from these to the points, scan frame.

    The points are mapped to the mesh, not the mesh to the points: its search tree is reused.
    """
    # inverse similarity, mesh frame
    own = (points - alignment.translation) @ alignment.rotation / alignment.scale
    distances, closest = surface.nearest(own)
    there = alignment(closest)
    distances = distances * alignment.scale  # back to mm
    # At a distance of 0 the direction is undefined; the clamp makes it 0.
    away = (points - there) / np.maximum(distances, 1e-12)[:, None]
    return distances, there, away


def _rotation_derivative(step: np.ndarray, lever: np.ndarray, towards: np.ndarray) -> np.ndarray:
    """Return how far `lever` moves along `towards` for a change of the rotation vector `step`."""
    import torch

    from ml.flame.rotation import rodrigues

    _, jacobian = rodrigues(torch.as_tensor(step, dtype=torch.float64))
    return np.cross(lever, towards) @ jacobian.numpy()  # (N, 3)


@dataclass(frozen=True)
class DistanceSummary:
    """Summary statistics of a scan's distances; the distances themselves are not kept.

    Attributes:
        count: number of distances.
        total: their sum, mm.
        squares: the sum of their squares, mm squared.
        bins: (B,) int32 occupied bins of `BIN_MM`; the last holds all beyond `LARGEST_MM`.
        bin_counts: (B,) int64.
    """

    count: int
    total: float
    squares: float
    bins: np.ndarray
    bin_counts: np.ndarray

    @classmethod
    def of(cls, distances_mm: np.ndarray) -> DistanceSummary:
        """Summarise distances, (N,) mm."""
        index = np.minimum((distances_mm / BIN_MM).astype(np.int64), _BINS)
        bins, counts = np.unique(index, return_counts=True)
        return cls(
            len(distances_mm),
            float(distances_mm.sum()),
            float((distances_mm**2).sum()),
            bins.astype(np.int32),
            counts.astype(np.int64),
        )


def score_scans(
    protocol: str,
    summaries: Sequence[DistanceSummary | None],
    groups: Sequence[str],
    *,
    num_mirrored: int = 0,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Scores:
    """Return metrics of a set from the summaries of its scans, pooled and by group.

    Args:
        protocol: one of `SCAN_PROTOCOLS`.
        summaries: one per image, None where nothing was predicted.
        groups: one per image: HQ or LQ, or NoW's challenge; empty for none.
        num_mirrored: images whose mesh the public tools would have mirrored.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        `scan_median_mm`, `scan_mean_mm`, `scan_std_mm` and `scan_rmse_mm`, and the same with
        `_<group>`; the median is exact to 0.01 mm.
    """
    from scipy.sparse import csr_array

    table = np.array(
        [(s.count, s.total, s.squares) if s else (0, 0.0, 0.0) for s in summaries], np.float64
    ).reshape(-1, 3)
    filled = [s for s in summaries if s]
    empty = np.zeros(0, np.int64)
    histograms = csr_array(
        (
            np.concatenate([empty, *(s.bin_counts for s in filled)]),
            np.concatenate([empty, *(s.bins for s in filled)]),
            np.append(0, np.cumsum([len(s.bins) if s else 0 for s in summaries])),
        ),
        # Sparse: of 5,000 bins a scan fills some hundreds, and every bootstrap draw weighs them.
        shape=(len(summaries), _BINS + 1),
    )
    names = np.array(groups, dtype=object)
    members: Mapping[str, np.ndarray] = {
        "": np.ones(len(summaries), bool),
        **{f"_{name.lower()}": names == name for name in sorted(set(groups)) if name},
    }

    def statistics(rows: np.ndarray) -> dict[str, float]:
        drawn = np.bincount(rows, minlength=len(summaries))  # (images,) how often each was drawn
        values: dict[str, float] = {}
        for suffix, inside in members.items():
            weights = drawn * inside
            pooled = _pooled(weights @ table, weights @ histograms)
            values |= {f"scan_{k}_mm{suffix}": v for k, v in pooled.items()}
        return values

    found = np.array([s is not None for s in summaries], bool)
    scores = score_heads(
        protocol, statistics, np.arange(len(summaries)), found, seed=seed, resamples=resamples
    )
    counts = {
        "num_distances": int(table[:, 0].sum()),
        "num_mirrored": num_mirrored,
        **{f"num_heads{k}": int(inside.sum()) for k, inside in members.items() if k},
    }
    notes = ("distances of all images in one pool; images without a prediction are left out",)
    return Scores(protocol, scores.metrics, scores.intervals, {**scores.counts, **counts}, notes)


def _pooled(sums: np.ndarray, histogram: np.ndarray) -> dict[str, float]:
    count, total, squares = sums
    if not count:
        return dict.fromkeys(("median", "mean", "std", "rmse"), float("nan"))
    mean, square = total / count, squares / count
    return {
        "median": _histogram_median(histogram),
        "mean": float(mean),
        "std": float(np.sqrt(max(square - mean**2, 0.0))),
        "rmse": float(np.sqrt(square)),
    }


def _histogram_median(histogram: np.ndarray) -> float:
    """Return the median of binned distances, mm, assuming uniform density within a bin.

    Inf beyond the last bin.
    """
    below = np.cumsum(histogram)
    half = below[-1] / 2  # counts, from the front
    bin_index = int(np.searchsorted(below, half))
    if bin_index == _BINS:
        return float("inf")
    before = below[bin_index] - histogram[bin_index]
    return float(BIN_MM * (bin_index + (half - before) / histogram[bin_index]))
