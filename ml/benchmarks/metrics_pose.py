"""Errors of head rotations under each public protocol and under ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ml.benchmarks.conventions import euler_from_rotations
from ml.benchmarks.scores import RESAMPLES, Scores, failed, mean, median, score_heads
from ml.evaluation.metrics import angle_error_deg, geodesic_deg

ANGLES = ("pitch", "yaw", "roll")
FAILURES_DEG = (10, 20, 30)
ZEROED_ABOVE_DEG = 135.0
MISSED_DEG = 180.0
_CANDIDATES = 64
_ITERATIONS = 200


@dataclass(frozen=True)
class PosePairs:
    """True poses of a benchmark and their predictions, one row per true head.

    The rows are in the benchmark's order, which matters to the protocol `img2pose`.

    Attributes:
        images: (N,) the image of each head.
        true_rotations: (N, 3, 3) FLAME axes to image axes.
        predicted_rotations: (N, 3, 3) likewise; NaN where the head was missed.
        true_euler_deg: (N, 3) pitch, yaw, roll as the set states them; from the rotations if left
            out. They may lie outside [-180, 180], as some of AFLW2000-3D do.
        predicted_euler_deg: (N, 3) as the model states them; from the rotations if left out.
    """

    images: np.ndarray
    true_rotations: np.ndarray
    predicted_rotations: np.ndarray
    true_euler_deg: np.ndarray | None = None
    predicted_euler_deg: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check shapes.

        Raises:
            ValueError: an array does not fit.
        """
        count = len(self.images)
        wanted = {
            "true_rotations": (count, 3, 3),
            "predicted_rotations": (count, 3, 3),
            "true_euler_deg": (count, 3),
            "predicted_euler_deg": (count, 3),
        }
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array is not None and np.shape(array) != shape:
                raise ValueError(f"pose pairs: {name} must be {shape}, got {np.shape(array)}")

    @property
    def found(self) -> np.ndarray:
        """(N,) bool, whether the head was predicted."""
        return np.isfinite(self.predicted_rotations).all(axis=(1, 2))

    def euler_deg(self) -> tuple[np.ndarray, np.ndarray]:
        """Return predicted and true (N, 3) pitch, yaw, roll; NaN where the head was missed."""
        predicted, true = self.predicted_euler_deg, self.true_euler_deg
        predicted = (
            euler_from_rotations(self.predicted_rotations) if predicted is None else predicted
        )
        true = euler_from_rotations(self.true_rotations) if true is None else true
        return np.where(self.found[:, None], predicted, np.nan), np.asarray(true, np.float64)


def vggheads_error_deg(predicted_deg: np.ndarray, true_deg: np.ndarray) -> np.ndarray:
    """Return errors as the official VGGHeads script computes them.

    The least of the differences and those less and plus 360 degrees; a prediction with any angle
    over 135 degrees is replaced by (0, 0, 0), which turns a gross error into a moderate one.

    Args:
        predicted_deg: (N, 3) pitch, yaw, roll.
        true_deg: (N, 3) likewise.

    Returns:
        (N, 3) degrees.
    """
    wild = (np.abs(predicted_deg) > ZEROED_ABOVE_DEG).any(axis=1)  # (N,)
    return _least(np.where(wild[:, None], 0.0, predicted_deg), true_deg, (0.0, 360.0, -360.0))


def sixd_repnet_error_deg(predicted_deg: np.ndarray, true_deg: np.ndarray) -> np.ndarray:
    """Return errors as 6DRepNet's script computes them: differences modulo 180 degrees too.

    An angle that is wrong by half a turn therefore has no error at all.

    Args:
        predicted_deg: (N, 3) pitch, yaw, roll.
        true_deg: (N, 3) likewise.

    Returns:
        (N, 3) degrees.
    """
    return _least(predicted_deg, true_deg, (0.0, 360.0, -360.0, 180.0, -180.0))


def img2pose_error_deg(predicted_deg: np.ndarray, true_deg: np.ndarray) -> np.ndarray:
    """Return errors as img2pose's notebook computes them: plain differences, no missed head.

    A missed head keeps the prediction of the head before it, a bug of that tool;
    missed heads before the first found one are left out.

    Args:
        predicted_deg: (N, 3) pitch, yaw, roll in the benchmark's order; NaN where missed.
        true_deg: (N, 3) likewise.

    Returns:
        (N, 3) degrees.
    """
    last = np.maximum.accumulate(
        # Row of the last head found up to and including each; -1 before the first.
        np.where(np.isnan(predicted_deg).any(axis=1), -1, np.arange(len(predicted_deg)))
    )
    carried = np.where((last >= 0)[:, None], predicted_deg[last], np.nan)
    return np.abs(carried - true_deg)


def _least(predicted: np.ndarray, true: np.ndarray, offsets_deg: tuple[float, ...]) -> np.ndarray:
    return np.min([np.abs(predicted - true + offset) for offset in offsets_deg], axis=0)


EULER_PROTOCOLS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "vggheads": vggheads_error_deg,
    "6drepnet": sixd_repnet_error_deg,
    "hopenet_crop": sixd_repnet_error_deg,
    "img2pose": img2pose_error_deg,
}
POSE_PROTOCOLS = (*EULER_PROTOCOLS, "ours")


def frobenius_error(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the Frobenius norm of I - R_predicted R_true^T: 2 sqrt(2) sin of half the angle.

    Args:
        predicted: (N, 3, 3) rotations.
        true: (N, 3, 3) rotations.

    Returns:
        (N,) from 0 to 2 sqrt(2).

    Source: DAD-3DHeads benchmark.
    """
    between = np.einsum("nij,nkj->nik", predicted, true)  # (N, 3, 3) R_predicted R_true^T
    return np.linalg.norm(np.eye(3) - between, axis=(1, 2))


def frame_rotation(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the rotation between two conventions of a head's axes: R_true = R_predicted C.

    Two head models call another pose frontal, so all rotations of the one differ from those of the
    other by one constant rotation of the head's axes. It is the geodesic median of the rows, which
    a minority of wrong predictions hardly moves: it minimises the sum of the remaining angles.

    Args:
        predicted: (N, 3, 3) rotations, NaN where missed.
        true: (N, 3, 3) rotations.

    Returns:
        (3, 3) the rotation C; the identity when nothing was found.

    Source: Hartley et al. 2011, "L1 rotation averaging using the Weiszfeld algorithm".
    """
    from scipy.spatial.transform import Rotation

    kept = np.isfinite(predicted).all(axis=(1, 2))
    if not kept.any():
        return np.eye(3)
    # C of every single row: R_predicted^T R_true, in the head's own axes.
    between = Rotation.from_matrix(np.swapaxes(predicted[kept], 1, 2) @ true[kept])
    # Weiszfeld's steps need a start in the right half of the rotations: the best of some rows.
    some = between[:: max(1, len(between) // _CANDIDATES)]
    starts = Rotation.concatenate([some, between.mean()])
    centre = starts[int(np.argmin([(s.inv() * between).magnitude().sum() for s in starts]))]
    for _ in range(_ITERATIONS):
        left = (centre.inv() * between).as_rotvec()  # (N, 3) rad, what is left of each row
        # Weiszfeld: a mean weighted by one over the distance goes to the median.
        weights = 1.0 / np.maximum(np.linalg.norm(left, axis=1), 1e-9)
        step = (weights[:, None] * left).sum(axis=0) / weights.sum()
        centre = centre * Rotation.from_rotvec(step)
        if np.linalg.norm(step) < 1e-9:
            break
    return centre.as_matrix()


def score_poses(
    pairs: PosePairs, protocol: str = "ours", seed: int = 0, resamples: int = RESAMPLES
) -> Scores:
    """Return pose errors of a benchmark.

    The public protocols give `pitch_mae_deg`, `yaw_mae_deg`, `roll_mae_deg` and their mean
    `euler_mae_deg`. Ours gives these too, the short way round, and the angle between the rotations
    with missed heads counted as failures, plain and after the frames were aligned; docs/metrics.md
    defines each.

    Args:
        pairs: the benchmark.
        protocol: one of `POSE_PROTOCOLS`.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        The scores.

    Raises:
        ValueError: there is no such protocol.
    """
    if protocol not in POSE_PROTOCOLS:
        raise ValueError(f"pose protocol: expected one of {POSE_PROTOCOLS}, got {protocol!r}")
    statistics = _ours(pairs) if protocol == "ours" else _euler(pairs, protocol)
    return score_heads(
        protocol,
        statistics,
        pairs.images,
        pairs.found,
        seed=seed,
        resamples=resamples,
        notes=_NOTES.get(protocol, ()),
    )


_NOTES = {
    "vggheads": (
        "missed heads are left out; a prediction with an angle over 135 degrees is (0, 0, 0)",
    ),
    "6drepnet": ("missed heads are left out; an error of 180 degrees counts as none",),
    "hopenet_crop": (
        "heads are looked for in Hopenet's crop of the image; errors are those of 6drepnet",
    ),
    "img2pose": ("a missed head keeps the prediction of the head before it",),
    "ours": (
        "aligned_: after the one constant rotation between the two frames, frame_rotation_deg",
    ),
}


def _euler(pairs: PosePairs, protocol: str) -> Callable[[np.ndarray], dict[str, float]]:
    # The errors are taken once, in the benchmark's order: a bootstrap draw has no order to carry
    # a prediction along.
    errors = EULER_PROTOCOLS[protocol](*pairs.euler_deg())
    return lambda rows: _angle_means(errors[rows])


def _ours(pairs: PosePairs) -> Callable[[np.ndarray], dict[str, float]]:
    from scipy.spatial.transform import Rotation

    predicted = np.asarray(pairs.predicted_rotations, np.float64)
    true = np.asarray(pairs.true_rotations, np.float64)
    frame = frame_rotation(predicted, true)
    aligned = predicted @ frame
    frame_deg = np.degrees(Rotation.from_matrix(frame).as_rotvec())  # (3,) axis times angle
    constant = {"frame_rotation_deg": float(np.linalg.norm(frame_deg))}
    constant |= {f"frame_{axis}_deg": float(v) for axis, v in zip("xyz", frame_deg, strict=True)}
    plain = _errors(predicted, true, *pairs.euler_deg())
    after = _errors(aligned, true, euler_from_rotations(aligned), pairs.euler_deg()[1])

    def statistics(rows: np.ndarray) -> dict[str, float]:
        values = _rotation_metrics(plain, rows)
        values |= {f"aligned_{k}": v for k, v in _rotation_metrics(after, rows).items()}
        return values | constant

    return statistics


@dataclass(frozen=True)
class _Errors:
    geodesic: np.ndarray
    frobenius: np.ndarray
    angles: np.ndarray


def _errors(
    predicted: np.ndarray, true: np.ndarray, predicted_deg: np.ndarray, true_deg: np.ndarray
) -> _Errors:
    return _Errors(
        geodesic_deg(predicted, true),
        frobenius_error(predicted, true),
        angle_error_deg(predicted_deg, true_deg),
    )


def _rotation_metrics(errors: _Errors, rows: np.ndarray) -> dict[str, float]:
    geodesic = errors.geodesic[rows]
    values = {
        "rotation_deg": mean(geodesic),
        "rotation_median_deg": median(geodesic),
        # A detector that finds the easy heads alone does not win by it.
        "rotation_with_misses_deg": mean(np.where(np.isnan(geodesic), MISSED_DEG, geodesic)),
        "rotation_frobenius": mean(errors.frobenius[rows]),
    }
    # NaN, a missed head, fails at every threshold.
    values |= {f"rotation_failure_rate_{t}": failed(geodesic, t) for t in FAILURES_DEG}
    return values | _angle_means(errors.angles[rows])


def _angle_means(errors_deg: np.ndarray) -> dict[str, float]:
    means = [mean(errors_deg[:, axis]) for axis in range(3)]
    values = {f"{name}_mae_deg": value for name, value in zip(ANGLES, means, strict=True)}
    return values | {"euler_mae_deg": float(np.mean(means))}
