"""Metrics of DAD-3DHeads, each in its correct and in its published form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml.benchmarks.alignment import fit_similarity
from ml.benchmarks.metrics_pose import frobenius_error
from ml.benchmarks.scores import RESAMPLES, Scores, failed, mean, score_heads
from ml.evaluation.metrics import geodesic_deg
from ml.flame.head_model import HeadModel
from ml.imaging.boxes import box_area

SEVEN = (36, 39, 42, 45, 33, 48, 54)
"""Of the 68: the corners of the eyes, the nose's lower end, the corners of the mouth."""
INNER_EYE_DISTANCE = 20.0
NEIGHBOURS = 5
FAILURE_PERCENT = 10.0
METRICS = (
    "nme_68_box",
    "nme_68_published",
    "z5",
    "z5_published",
    "chamfer",
    "chamfer_published",
    "rotation_frobenius",
    "rotation_deg",
)


@dataclass(frozen=True)
class DadTopology:
    """Vertices that the metrics use.

    Attributes:
        z5_index: (Z,) vertices whose depth order is compared: 3,669 in DAD's own benchmark, 3,457
            in VGGHeads' script.
        face_index: (F,) true vertices of the Chamfer distance: 2,094.
        landmark_corners: (68, 3) vertices of the landmarks' triangles.
        landmark_weights: (68, 3) their barycentric weights.
    """

    z5_index: np.ndarray
    face_index: np.ndarray
    landmark_corners: np.ndarray
    landmark_weights: np.ndarray

    @classmethod
    def of(cls, head_model: HeadModel, z5_region: str = "head_with_ears") -> DadTopology:
        """Return the topology of a head model.

        `z5_region` is the head with its ears, as DAD's is.
        """
        return cls(
            z5_index=head_model.region(z5_region),
            face_index=head_model.region("face"),
            landmark_corners=head_model.faces[head_model.landmark_faces],
            landmark_weights=head_model.landmark_barycentric.astype(np.float64),
        )

    def landmarks(self, vertices: np.ndarray) -> np.ndarray:
        """Return the 68 landmarks of a mesh, (V, D) to (68, D)."""
        return (vertices[self.landmark_corners] * self.landmark_weights[:, :, None]).sum(axis=1)


@dataclass(frozen=True)
class DadTruth:
    """One annotated head.

    Attributes:
        vertices_world: (V, 3) mesh after the model-view matrix: y up, z towards the viewer.
        landmarks_px: (68, 2) projected landmarks.
        rotation: (3, 3) FLAME axes to image axes.
        box_xyxy: (4,) px.
    """

    vertices_world: np.ndarray
    landmarks_px: np.ndarray
    rotation: np.ndarray
    box_xyxy: np.ndarray


@dataclass(frozen=True)
class DadPrediction:
    """One head of a submission; fields that a model does not provide are None.

    Attributes:
        landmarks_px: `68_landmarks_2d`, (68, 2).
        vertices: `N_landmarks_3d`, (M, 3), z away from the viewer, any scale and place.
        seven: `7_landmarks_3d`, (7, 3) in the frame of `vertices`.
        rotation: `rotation_matrix`, (3, 3) FLAME axes to image axes.
    """

    landmarks_px: np.ndarray | None = None
    vertices: np.ndarray | None = None
    seven: np.ndarray | None = None
    rotation: np.ndarray | None = None


def nme_box(predicted_px: np.ndarray, true_px: np.ndarray, box_xyxy: np.ndarray) -> float:
    """Return the mean landmark error over sqrt(w h) of the true head's box, percent.

    Args:
        predicted_px: (68, 2).
        true_px: (68, 2).
        box_xyxy: (4,) px.

    Returns:
        Percent.
    """
    size = np.sqrt(box_area(box_xyxy[None])[0])
    return 100.0 * float(np.linalg.norm(predicted_px - true_px, axis=1).mean() / size)


def nme_published(predicted_px: np.ndarray, true_px: np.ndarray, box_xyxy: np.ndarray) -> float:
    """Return the error over sqrt(x2 y2), as VGGHeads' script: it shrinks to the right and down.

    Args:
        predicted_px: (68, 2).
        true_px: (68, 2).
        box_xyxy: (4,) px.

    Returns:
        Percent.
    """
    return nme_box(predicted_px, true_px, np.array([0.0, 0.0, *box_xyxy[2:]]))


def z_order_stated(predicted: np.ndarray, true: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Return the fraction of vertices and nearest true neighbours whose depth order agrees.

    Args:
        predicted: (Z, 3) vertices, z away from the viewer.
        true: (Z, 3) the same vertices, z likewise.
        neighbours: how many of each vertex.

    Returns:
        0 to 1.

    Source: Martyniuk et al. 2022, "DAD-3DHeads", section 5.
    """
    from scipy.spatial import cKDTree

    # the nearest is the vertex itself
    others = cKDTree(true).query(true, k=neighbours + 1)[1][:, 1:]
    return _agreement(predicted[:, 2], true[:, 2], others)


def z_order_coded(predicted: np.ndarray, true: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Return Z5 as the public code computes it: vertex i is compared with five arbitrary ones.

    That code sorts the distances along one axis of the table and slices the other: row i
    holds the i-th nearest vertex to vertex 1, to vertex 2, and so on to vertex 5.

    Args:
        predicted: (Z, 3) vertices, z away from the viewer.
        true: (Z, 3) the same vertices, z likewise.
        neighbours: the code's `top_k`.

    Returns:
        0 to 1.
    """
    centres = true[1 : neighbours + 1]
    squared = ((true[:, None] - centres[None]) ** 2).sum(axis=2)  # (Z, 5)
    others = np.argsort(squared, axis=0, kind="stable")  # (Z, 5), along the wrong axis as there
    return _agreement(predicted[:, 2], true[:, 2], others)


def _agreement(predicted_z: np.ndarray, true_z: np.ndarray, others: np.ndarray) -> float:
    true_order = true_z[:, None] >= true_z[others]  # (Z, 5)
    return float((true_order == (predicted_z[:, None] >= predicted_z[others])).mean())


def chamfer(
    vertices: np.ndarray,
    seven: np.ndarray,
    vertices_world: np.ndarray,
    topology: DadTopology,
    may_mirror: bool,
) -> float:
    """Return the mean squared distance of true face vertices from the nearest predicted vertex.

    The true mesh is scaled until its inner eye corners are 20 apart, the prediction is brought to
    it by a similarity of seven points.

    Args:
        vertices: (M, 3) predicted mesh, any scale and place.
        seven: (7, 3) its seven landmarks.
        vertices_world: (V, 3) true mesh.
        topology: which vertices count.
        may_mirror: whether the similarity may mirror, as the public code lets it: then a face
            that is hollow instead of round has no error.

    Returns:
        Squared units of 1/20 of the distance of the inner eye corners.
    """
    from scipy.spatial import cKDTree

    true_seven = topology.landmarks(vertices_world)[list(SEVEN)]
    # two of the seven are the inner eye corners
    scale = INNER_EYE_DISTANCE / np.linalg.norm(true_seven[1] - true_seven[2])
    move = fit_similarity(seven, scale * true_seven, may_mirror=may_mirror)
    tree = cKDTree(move(vertices))
    # From the true face to the prediction alone: what a mesh has besides the face costs nothing.
    distance, _ = tree.query(scale * vertices_world[topology.face_index])
    return float((distance**2).mean())


def dad_errors(
    truth: DadTruth, prediction: DadPrediction | None, topology: DadTopology
) -> dict[str, float]:
    """Return all metrics of one head.

    Args:
        truth: the annotation.
        prediction: what was predicted, None where the head was missed.
        topology: which vertices count.

    Returns:
        Each of `METRICS`; NaN where the head was missed, where the model does not give what the
        metric needs, and for the depth order where its mesh has other vertices than the true one.

    Raises:
        ValueError: an array of the prediction has another shape than its field says.
    """
    errors = dict.fromkeys(METRICS, float("nan"))
    if prediction is None:
        return errors
    _check(prediction)
    if prediction.landmarks_px is not None:
        landmarks = prediction.landmarks_px, truth.landmarks_px, truth.box_xyxy
        errors |= {"nme_68_box": nme_box(*landmarks), "nme_68_published": nme_published(*landmarks)}
    if prediction.rotation is not None:
        rotations = prediction.rotation[None], truth.rotation[None]
        errors["rotation_frobenius"] = float(frobenius_error(*rotations)[0])
        errors["rotation_deg"] = float(geodesic_deg(*rotations)[0])
    vertices, world = prediction.vertices, truth.vertices_world
    if vertices is not None and len(vertices) == len(world):
        away = world[topology.z5_index] * np.array([1.0, 1.0, -1.0])
        # Distances do not change with the sign of z, so the mirrored cloud has the same neighbours.
        pair = vertices[topology.z5_index], away
        errors |= {"z5": z_order_stated(*pair), "z5_published": z_order_coded(*pair)}
    if vertices is not None and prediction.seven is not None:
        meshes = vertices, prediction.seven, world, topology
        errors["chamfer"] = chamfer(*meshes, may_mirror=False)
        errors["chamfer_published"] = chamfer(*meshes, may_mirror=True)
    return errors


def _check(prediction: DadPrediction) -> None:
    shapes = {
        "landmarks_px": (68, 2),
        "vertices": (None, 3),
        "seven": (7, 3),
        "rotation": (3, 3),
    }
    for name, shape in shapes.items():
        array = getattr(prediction, name)
        if array is None:
            continue
        same = array.ndim == 2 and all(
            w in (None, g) for w, g in zip(shape, array.shape, strict=True)
        )
        if not same or not np.isfinite(array).all():
            wanted = " x ".join("M" if n is None else str(n) for n in shape)
            raise ValueError(f"{name}: expected {wanted} finite numbers, got {array.shape}")


def score_dad(
    errors: Sequence[Mapping[str, float]],
    found: Sequence[bool],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Scores:
    """Return metrics of the set from those of its heads, one head an image.

    Args:
        errors: results of :func:`dad_errors`.
        found: whether there is a prediction.
        seed: run seed of the bootstrap.
        resamples: number of bootstrap resamples over the images.

    Returns:
        Means of `METRICS` over the heads that have them, and `failure_rate_68`, which counts
        missed heads as failures.
    """
    table = {name: np.array([row[name] for row in errors], np.float64) for name in METRICS}
    nme, hits = table["nme_68_box"], np.asarray(found, bool)
    # A model that gives no landmarks at all has no failure rate rather than one of 1.
    given = bool(np.isfinite(nme[hits]).any() or not hits.any())

    def statistics(rows: np.ndarray) -> dict[str, float]:
        values = {name: mean(column[rows]) for name, column in table.items()}
        rate = failed(nme[rows], FAILURE_PERCENT) if given else float("nan")
        return values | {"failure_rate_68": rate}

    return score_heads(
        "dad-3dheads",
        statistics,
        np.arange(len(errors)),
        hits,
        seed=seed,
        resamples=resamples,
        notes=(
            "published: as the public script computes it, for comparison with the paper only",
            "means are over found heads; compare them with num_missed and failure_rate_68",
        ),
    )
