"""Condition images of a diffusion model: skeletons, or the PNCC map of posed heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from ml.flame.head_model import HeadModel
from ml.flame.pncc import draw_pncc, drawn_faces
from ml.generation.config import HeadVariation
from ml.generation.generator import GenerationRequest
from ml.generation.renderer.people import draw_flame, head_kit
from ml.generation.renderer.renderer import require_posed
from ml.generation.renderer.truth import TruthHead, head_extents, silhouette
from ml.imaging.rasterizer import Float32Array, Int32Array
from ml.poses.openpose import draw_openpose, joint_radius
from ml.poses.skeleton import PoseSample
from ml.records.determinism import one_thread

_SOLO_SIDE: Final = 160
"""Longest side, px, at which a head is drawn alone to measure what hides it."""
UNKNOWN: Final = "unknown"
"""Stands for a look that the diffusion model chose."""
UNKNOWN_TONE: Final = 5
"""Monk tone recorded where no caption states one: the scale's middle."""


@dataclass(frozen=True)
class Condition:
    """The condition of an image, and the heads that it determines.

    Attributes:
        image_rgb: (H, W, 3) uint8.
        heads: visible heads with exact parameters; empty for a skeleton.
    """

    image_rgb: np.ndarray
    heads: tuple[TruthHead, ...]


def openpose_condition(pose: PoseSample, reverse_channels: bool) -> Condition:
    """Return the skeletons of a pose, far ones first, joints of 8 px at a shorter side of 1024 px.

    Args:
        pose: the skeletons.
        reverse_channels: swap red and blue, as some adapters expect.

    Returns:
        The drawing; no head is known exactly.
    """
    far_to_near = sorted(pose.people, key=lambda person: -person.depth)
    keypoints = np.stack([person.keypoints for person in far_to_near])
    image = draw_openpose(
        keypoints,
        pose.width,
        pose.height,
        joint_radius_px=joint_radius(pose.width, pose.height),
        reverse_channels=reverse_channels,
    )
    return Condition(image, ())


def pncc_condition(
    request: GenerationRequest, head_model: HeadModel, variation: HeadVariation
) -> Condition:
    """Return heads posed as the skeletons' and drawn as a PNCC map (appendix F of the paper).

    The model sees only the map, so the ground truth is that of the map: a head's box encloses its
    drawn pixels, only other heads hide it, and its hair is the model's choice.

    Args:
        request: pose, scene (for the skin tones that the prompt fits) and random generator.
        head_model: the heads' model.
        variation: how much heads differ.

    Returns:
        The map and its visible heads.

    Raises:
        ValueError: a person has no third dimension.
    """
    pose = request.pose
    require_posed(pose)
    flames = np.stack([draw_flame(p, variation, request.rng) for p in pose.people])
    with one_thread(), torch.inference_mode():
        tensor = head_kit(head_model).layer.vertices_in_image(torch.from_numpy(flames))
    vertices = list(tensor.numpy())
    order = [float(person.depth) for person in pose.people]
    image, shown = draw_pncc(vertices, head_model, pose.height, pose.width, order)
    looks = request.scene.people if request.scene is not None else ()
    tones = [look.skin_tone for look in looks] or [UNKNOWN_TONE] * len(pose.people)
    return Condition(image, tuple(_heads(vertices, flames, shown, drawn_faces(head_model), tones)))


def _heads(
    vertices: Sequence[np.ndarray],
    flames: Float32Array,
    shown: Int32Array,
    faces: np.ndarray,
    tones: Sequence[int],
) -> list[TruthHead]:
    heads = []
    for index, extent in enumerate(head_extents(shown, len(vertices))):
        if extent.count == 0:
            continue
        height, width = shown.shape
        area, inside = silhouette(
            vertices[index], faces.astype(np.int32), height, width, longest=_SOLO_SIDE
        )
        box = [extent.left, extent.top, extent.right - extent.left, extent.bottom - extent.top]
        heads.append(
            TruthHead(
                person_id=index,
                bbox_xywh=np.array(box, np.float32),
                visible=float(min(extent.count / max(area * inside, 1.0), 1.0)),
                inside=inside,
                flame=flames[index],
                skin_tone=tones[index],
                hair_style=UNKNOWN,
                glasses=UNKNOWN,
                hat=UNKNOWN,
            )
        )
    return heads
