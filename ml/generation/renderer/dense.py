"""Dense ground truth of a rendered image: depth, normals, segmentation, UV, and each head's pose.

Every map is sampled at pixel centres, (column + 0.5, row + 0.5), of the image's own size. The frame
is the image's: x right, y down, z away from the camera.

Rendering is weakly perspective: each person is seen orthographically at a scale of its own, and
people are `DEPTH_GAP_M` apart in their depth order. Metres are therefore a person's own; the
nearest person's origin is where a camera of focal length 1.15 image widths would see the median
person at its scale.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

import numpy as np
import torch

from ml.flame.head_model import HeadModel
from ml.flame.params import ROTATION, SCALE, SHIFT_XY
from ml.flame.rotation import matrix_from_6d
from ml.generation.config import DenseMap
from ml.generation.renderer import materials, parts
from ml.generation.renderer.canvas import FOCAL_PER_WIDTH
from ml.generation.renderer.people import HeadKit, head_kit
from ml.generation.renderer.renderer import (
    DEPTH_GAP_M,
    RenderedSample,
    SceneGeometry,
    render_pncc,
)
from ml.generation.renderer.shading import Visibility
from ml.generation.renderer.visibility import SceneMesh, visible
from ml.imaging.rasterizer import Float32Array, Int32Array, interpolate
from ml.poses.skeleton import PoseSample
from ml.records.determinism import one_thread

MAPS: Final[tuple[str, ...]] = get_args(DenseMap)
"""Names of the available maps."""

CLASSES: Final = (
    "background", "body", "clothing", "neck", "face_and_scalp", "ears", "eyes", "hair",
    "headwear_and_glasses", "prop",
)  # fmt: skip
"""Meaning of the segmentation's numbers."""

_OCCLUSION_SLACK_M = 0.004
"""A vertex this far behind the visible surface still counts as visible: half a pixel on a
slanted cheek."""


@dataclass(frozen=True)
class DenseTruth:
    """Dense ground truth of one image.

    Attributes:
        maps: by name, those requested: `depth` (H, W) float16 metres, +inf on background;
            `normals` (H, W, 3) float16 unit vectors that face the camera, 0 on background;
            `segmentation` (H, W) uint8 index into `CLASSES`; `instances` (H, W) int16 person,
            -1 on background; `uv` (H, W, 2) float16, NaN where no head's surface is visible;
            `pncc` (H, W, 3) uint8 as the conditioning map, which nothing but heads hides.
        vertex_visible: (P, V) bool vertices of each person's head model that are seen; those of
            the neck where it is drawn, bent to the trunk.
        heads: one JSON-serialisable description per person, see `_describe`.
        camera: the camera's setting, JSON-serialisable.
        light: directions towards the lights and their colours, JSON-serialisable.
    """

    maps: dict[str, np.ndarray]
    vertex_visible: np.ndarray
    heads: list[dict[str, Any]]
    camera: dict[str, Any]
    light: dict[str, Any]

    def members(self) -> dict[str, bytes | dict[str, Any]]:
        """Return the members of a shard: `dense.npz`, and `heads.json`."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {"vertex_visible": self.vertex_visible, **self.maps}
        np.savez_compressed(buffer, **arrays)
        text = {"classes": CLASSES, "camera": self.camera, "light": self.light, "heads": self.heads}
        return {"dense.npz": buffer.getvalue(), "heads.json": text}


def dense_truth(
    sample: RenderedSample, pose: PoseSample, head_model: HeadModel, maps: Sequence[str] = MAPS
) -> DenseTruth:
    """Compute the dense ground truth of a rendered image.

    Args:
        sample: from `render_sample`.
        pose: the pose it was made from.
        head_model: the same head model.
        maps: names of the requested maps, from `MAPS`.

    Returns:
        The maps, and a description of each person's head.

    Raises:
        ValueError: there is no such map.
    """
    if unknown := sorted(set(maps) - set(MAPS)):
        raise ValueError(f"dense: expected maps of {', '.join(MAPS)}, got {', '.join(unknown)}")
    geometry = sample.geometry
    scene = geometry.mesh.scaled(1.0 / geometry.supersampling)
    seen = visible(scene, pose.height, pose.width)
    kit = head_kit(head_model)
    makers = {
        "depth": lambda: depth_map(scene, seen, geometry, pose).astype(np.float16),
        "normals": lambda: normal_map(scene, seen).astype(np.float16),
        "segmentation": lambda: _segmentation(scene, seen, geometry, head_model, kit),
        "instances": lambda: _instances(scene, seen).astype(np.int16),
        "uv": lambda: uv_map(scene, seen, kit).astype(np.float16),
        "pncc": lambda: render_pncc(sample, pose, head_model),
    }
    vertex_visible = np.stack(
        [
            _is_seen(scene.mesh.positions[part], seen.depth, _scale(pose, person))
            for person, part in enumerate(scene.head_vertices)
        ]
    )
    return DenseTruth(
        maps={name: makers[name]() for name in maps},
        vertex_visible=vertex_visible,
        heads=_describe(sample, pose, kit, seen),
        camera=_as_json(asdict(geometry.camera)),
        light=_as_json(asdict(geometry.light)),
    )


def depth_map(
    scene: SceneMesh, seen: Visibility, geometry: SceneGeometry, pose: PoseSample
) -> Float32Array:
    """Return (H, W) float32 metres from the camera, +inf on background."""
    person = _instances(scene, seen)
    scales = np.array([_scale(pose, index) for index in range(len(pose.people))])
    origin = _origin_depths_m(pose)
    metres = origin[person] + (seen.depth - geometry.depth_px[person]) / scales[person]
    return np.where(person >= 0, metres, np.inf).astype(np.float32)


def normal_map(scene: SceneMesh, seen: Visibility) -> Float32Array:
    """Return (H, W, 3) float32 unit normals on the side of the camera, 0 on background."""
    mesh = scene.mesh
    normals = interpolate(mesh.normals, mesh.faces, seen.face_index, seen.barycentric)
    length = np.linalg.norm(normals, axis=2, keepdims=True)
    # Hair and cloth are drawn from both sides; the camera sees the one whose normal has z < 0.
    side = np.where(normals[..., 2:] > 0.0, -1.0, 1.0)
    return np.divide(side * normals, length, out=np.zeros_like(normals), where=length > 0.0)


def uv_map(scene: SceneMesh, seen: Visibility, kit: HeadKit) -> Float32Array:
    """Return (H, W, 2) float32 coordinates on the heads' surface, NaN elsewhere.

    u is the azimuth around the template's vertical axis: 0.5 the front, towards 1 the person's
    left; v is the height, 0 the crown and 1 the lowest vertex of the template.
    """
    template = kit.assets.template
    surface = np.zeros_like(scene.mesh.positions)
    on_head = np.zeros(len(scene.mesh.faces), bool)
    for vertices, faces in zip(scene.head_vertices, scene.head_faces, strict=True):
        surface[vertices] = template
        on_head[faces] = True
    # Interpolating positions first keeps the seam at the back of the head clean.
    points = interpolate(surface, scene.mesh.faces, seen.face_index, seen.barycentric)
    u = 0.5 + np.arctan2(points[..., 0], points[..., 2]) / (2.0 * np.pi)
    low, high = float(template[:, 1].min()), float(template[:, 1].max())
    uv = np.stack([u, (high - points[..., 1]) / (high - low)], axis=2)
    shown = (seen.face_index >= 0) & on_head[seen.face_index]
    return np.where(shown[..., None], uv, np.nan).astype(np.float32)


def _instances(scene: SceneMesh, seen: Visibility) -> Int32Array:
    """Return (H, W) int32 person of every pixel, -1 on background."""
    return np.where(seen.face_index >= 0, scene.face_person[seen.face_index], -1).astype(np.int32)


def _segmentation(
    scene: SceneMesh,
    seen: Visibility,
    geometry: SceneGeometry,
    head_model: HeadModel,
    kit: HeadKit,
) -> np.ndarray:
    """Return (H, W) uint8 index into `CLASSES`."""
    code = {name: index for index, name in enumerate(CLASSES)}
    mesh = scene.mesh
    kind = geometry.material_kinds[mesh.materials]
    label = np.full(len(mesh.faces), code["headwear_and_glasses"], np.uint8)
    label[mesh.parts == parts.BODY] = code["body"]
    label[(mesh.parts == parts.BODY) & (kind == materials.CLOTH)] = code["clothing"]
    label[kind == materials.HAIR] = code["hair"]
    label[mesh.parts == parts.PROP] = code["prop"]
    is_ear = np.zeros(len(kit.assets.template), bool)
    is_ear[head_model.regions["ears"]] = True
    ears = is_ear[kit.assets.faces].all(axis=1)
    for faces in scene.head_faces:
        own = np.where(
            kit.assets.face_parts == parts.HEAD, code["face_and_scalp"], code["neck"]
        ).astype(np.uint8)
        own[ears] = code["ears"]
        own[kit.assets.is_eye] = code["eyes"]
        label[faces] = own
    return np.where(seen.face_index >= 0, label[seen.face_index], 0).astype(np.uint8)


def _describe(
    sample: RenderedSample, pose: PoseSample, kit: HeadKit, seen: Visibility
) -> list[dict[str, Any]]:
    """Describe every person's head, whether it is seen or not.

    Keys: `person_id`; `rotation` (3, 3) from the head model's frame to the camera's;
    `translation_m` (3,) of the head's origin, the image's centre on the optical axis;
    `scale_px_per_m` of the weak perspective, and `focal_px` with which a pinhole camera sees the
    head's origin at that scale; `gaze` (3,) unit vector; `landmarks_px` (68, 2) and
    `landmarks_visible` (68,); `flame` (413,), image frame, px.
    """
    flames = torch.from_numpy(sample.flames)
    with one_thread(), torch.inference_mode():
        rotations = matrix_from_6d(flames[:, ROTATION]).numpy()
        landmarks = kit.layer.landmarks_in_image(flames).numpy()
    origins = _origin_depths_m(pose)
    centre_px = 0.5 * np.array([pose.width, pose.height])
    heads = []
    for index, person in enumerate(pose.people):
        flame, scale = sample.flames[index], float(sample.flames[index, SCALE][0])
        assert person.head_centre_m is not None
        centre_z = float(person.head_centre_m[2])
        place = (flame[SHIFT_XY] - centre_px) / scale
        z = float(origins[index]) + centre_z
        points = landmarks[index].copy()
        points[:, 2] += scale * centre_z + sample.geometry.depth_px[index]
        heads.append(
            {
                "person_id": index,
                "rotation": rotations[index].tolist(),
                "translation_m": [*(float(value) for value in place), z],
                "scale_px_per_m": scale,
                "focal_px": scale * z,
                "gaze": sample.geometry.gazes[index].tolist(),
                "landmarks_px": points[:, :2].tolist(),
                "landmarks_visible": _is_seen(points, seen.depth, scale).tolist(),
                "flame": flame.tolist(),
            }
        )
    return heads


def _is_seen(points_px: np.ndarray, depth_px: Float32Array, scale: float) -> np.ndarray:
    """Return which points (N, 3), image px, are in the image and not hidden."""
    height, width = depth_px.shape
    inside = (
        (points_px[:, 0] >= 0.0)
        & (points_px[:, 0] < width)
        & (points_px[:, 1] >= 0.0)
        & (points_px[:, 1] < height)
    )
    column = np.clip(points_px[:, 0].astype(np.int64), 0, width - 1)
    row = np.clip(points_px[:, 1].astype(np.int64), 0, height - 1)
    in_front = points_px[:, 2] <= depth_px[row, column] + _OCCLUSION_SLACK_M * scale
    return inside & in_front


def _origin_depths_m(pose: PoseSample) -> np.ndarray:
    """Return (P,) metres from the camera to the origin of each person's joints."""
    scales = [_scale(pose, index) for index in range(len(pose.people))]
    nearest = FOCAL_PER_WIDTH * pose.width / float(np.median(scales))
    order = np.argsort([person.depth for person in pose.people], kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order))
    return nearest + DEPTH_GAP_M * rank


def _scale(pose: PoseSample, person: int) -> float:
    """Return pixels of the image per metre of a person."""
    return float(pose.people[person].scale_px_per_m or 0.0)


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }
