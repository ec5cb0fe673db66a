"""The embedded image generator: skeleton + scene + chance -> image with exact ground truth.

People are triangle meshes in one depth buffer (`people.py`), the place is painted behind them
(`backgrounds.py`), and a camera develops the whole (`camera.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ml.captions.scene import Scene
from ml.flame.head_model import HeadModel
from ml.flame.pncc import pncc_map
from ml.generation.config import RendererConfig
from ml.generation.renderer.backgrounds import paint_background
from ml.generation.renderer.camera import Camera, develop, sample_camera
from ml.generation.renderer.lighting import LightRig, ambient_occlusion, cast_shadows, make_rig
from ml.generation.renderer.materials import KIND, MaterialTable
from ml.generation.renderer.parts import in_head_box
from ml.generation.renderer.people import (
    PersonMeshes,
    deform,
    draw_flame,
    head_kit,
    person_meshes,
)
from ml.generation.renderer.shading import shade
from ml.generation.renderer.truth import TruthHead, head_extents, solo_fraction
from ml.generation.renderer.visibility import SceneMesh, assemble, visible
from ml.imaging.rasterizer import Float32Array, Int32Array
from ml.poses.skeleton import PoseSample
from ml.records.determinism import one_thread

DEPTH_GAP_M = 0.55
"""Distance between persons that follow one another in depth, metres of the nearer one."""


@dataclass(frozen=True)
class SceneGeometry:
    """Geometry of a drawn image, from which dense ground truth is computed.

    Attributes:
        mesh: all people, in pixels of the buffer.
        supersampling: buffer pixels per image pixel and side.
        material_kinds: (M,) kind of each material row, a constant of `materials.py`.
        depth_px: (P,) offset added to every z of a person, image pixels.
        gazes: (P, 3) unit vectors of looking directions, image axes.
        light: the lights.
        camera: the camera setting.
    """

    mesh: SceneMesh
    supersampling: int
    material_kinds: np.ndarray
    depth_px: np.ndarray
    gazes: np.ndarray
    light: LightRig
    camera: Camera


@dataclass(frozen=True)
class RenderedSample:
    """An image and its ground truth.

    Attributes:
        image_rgb: (H, W, 3) uint8.
        heads: the visible heads, in the pose's order.
        head_ids: (H, W) int16 index of the person whose head is seen at a pixel's upper left
            sample, -1 elsewhere.
        flames: (P, 413) float32 of all persons, seen or not.
        geometry: the drawn meshes.
    """

    image_rgb: np.ndarray
    heads: list[TruthHead]
    head_ids: np.ndarray
    flames: Float32Array
    geometry: SceneGeometry


def render_sample(
    pose: PoseSample,
    scene: Scene,
    head_model: HeadModel,
    config: RendererConfig,
    rng: np.random.Generator,
    backdrop: Float32Array | None = None,
) -> RenderedSample:
    """Draw the people of a pose as a caption describes them.

    Args:
        pose: the skeletons; every person needs the third dimension.
        scene: the caption's scene, one look per person.
        head_model: the heads' model.
        config: quality and variety.
        rng: the sample's generator; equal state gives equal bytes.
        backdrop: (H, W, 3) float32 display-linear RGB to put them in front of, changed in place;
            left out, the scene's place is painted.

    Returns:
        Image and truth.

    Raises:
        ValueError: numbers of persons differ, a person has no third dimension, or a word is
            unknown.
    """
    _check(pose, scene)
    kit = head_kit(head_model)
    flames = np.stack([draw_flame(p, config.heads, rng) for p in pose.people])
    vertices = deform(kit, flames, config.heads)
    table = MaterialTable()
    depths = _depths(pose)
    people = [
        person_meshes(
            person, look, kit, vertices[i], table, depth, pose.height, config.supersampling,
            config.prop_probability, np.random.Generator(np.random.PCG64(rng.integers(2**63))),
        )
        for i, (person, look, depth) in enumerate(
            zip(pose.people, scene.people, depths, strict=True)
        )
    ]  # fmt: skip
    rig = make_rig(scene.light, rng)
    size = (pose.height, pose.width)
    mesh = assemble(people)
    colour, alpha, head_ids = _draw(mesh, table, rig, pose, config)
    if backdrop is None:
        backdrop = paint_background(scene.place, scene.light, *size, _horizon(pose, rng), rng)
    _darken_ground(backdrop, pose)
    radiance = backdrop * (1.0 - alpha[..., None]) + colour
    camera = sample_camera(scene.light, rng)
    image = develop(radiance, camera, rng)
    heads = _truth(pose, scene, people, flames, head_ids, config.supersampling)
    step = config.supersampling
    geometry = SceneGeometry(
        mesh=mesh,
        supersampling=step,
        material_kinds=table.array()[:, KIND].astype(np.int32),
        depth_px=np.array(depths),
        gazes=np.stack([person.gaze for person in people]),
        light=rig,
        camera=camera,
    )
    return RenderedSample(image, heads, head_ids[::step, ::step].astype(np.int16), flames, geometry)


def render_pncc(sample: RenderedSample, pose: PoseSample, head_model: HeadModel) -> np.ndarray:
    """Return the PNCC map of a rendered image.

    Args:
        sample: from `render_sample`.
        pose: the pose it was made from, whose depth order is used.
        head_model: the same head model.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    with one_thread(), torch.inference_mode():
        vertices = head_kit(head_model).layer.vertices_in_image(torch.from_numpy(sample.flames))
    order = [float(person.depth) for person in pose.people]
    return pncc_map(list(vertices.numpy()), head_model, pose.height, pose.width, order)


def _check(pose: PoseSample, scene: Scene) -> None:
    if len(pose.people) != len(scene.people):
        raise ValueError(
            f"{pose.pose_id}: the scene describes {len(scene.people)} persons, the pose has "
            f"{len(pose.people)}; captions and poses must be of the same run"
        )
    require_posed(pose)


def require_posed(pose: PoseSample) -> None:
    """Reject a pose whose heads cannot be placed.

    Args:
        pose: the skeletons.

    Raises:
        ValueError: there are no people, or a person's third dimension is unknown or not finite.
    """
    if not pose.people:
        raise ValueError(f"{pose.pose_id}: a pose needs at least one person to be drawn, got none")
    for index, person in enumerate(pose.people):
        known = (person.joints_m, person.head_rotation, person.scale_px_per_m, person.shift_px)
        if any(value is None for value in known) or person.head_centre_m is None:
            raise ValueError(
                f"{pose.pose_id}: person {index} has no third dimension (estimated from a "
                "photograph?); the renderer needs sampled poses, choose a diffusion backend instead"
            )
        scale = float(person.scale_px_per_m or 0.0)
        arrays = (person.joints_m, person.head_rotation, person.shift_px, person.head_centre_m)
        finite = all(np.isfinite(np.asarray(a, np.float64)).all() for a in arrays)
        if not (np.isfinite(scale) and scale > 0.0 and finite):
            raise ValueError(
                f"{pose.pose_id}: person {index} has a joint, rotation or scale that is not finite "
                f"or not positive (scale {scale})"
            )


def _depths(pose: PoseSample) -> list[float]:
    """Return Z offsets in image pixels by the persons' depth order."""
    order = np.argsort([person.depth for person in pose.people], kind="stable")
    offsets = [0.0] * len(pose.people)
    at = 0.0
    for index in order:
        offsets[index] = at
        at += DEPTH_GAP_M * float(pose.people[index].scale_px_per_m or 0.0)
    return offsets


def _horizon(pose: PoseSample, rng: np.random.Generator) -> float:
    """Return eye level: cameras are held about as high as the heads they look at."""
    rows = [
        float(p.shift_px[1] + p.scale_px_per_m * p.head_centre_m[1])
        for p in pose.people
        if p.shift_px is not None and p.scale_px_per_m is not None and p.head_centre_m is not None
    ]
    row = float(np.median(rows)) + rng.normal(0.0, 0.07) * pose.height
    return float(np.clip(row, 0.12 * pose.height, 0.72 * pose.height))


def _darken_ground(backdrop: Float32Array, pose: PoseSample) -> None:
    """Shade the ground under feet, in place."""
    shade_px = np.zeros(backdrop.shape[:2], np.uint8)
    for person in pose.people:
        scale = float(person.scale_px_per_m or 0.0)
        ankles = np.asarray(person.joints_m)[15:17, :2] * scale + np.asarray(person.shift_px)
        if ankles[:, 1].max() > backdrop.shape[0] or ankles[:, 1].min() < 0:
            continue
        for x, y in ankles:
            centre = (int(x * 16), int((y + 0.07 * scale) * 16))
            axes = (max(int(0.20 * scale * 16), 1), max(int(0.045 * scale * 16), 1))
            cv2.ellipse(shade_px, centre, axes, 0.0, 0.0, 360.0, 130, -1, cv2.LINE_AA, 4)
    if shade_px.any():
        soft = cv2.GaussianBlur(shade_px, (0, 0), max(0.006 * backdrop.shape[0], 0.6))
        backdrop *= 1.0 - soft[..., None] * np.float32(1.0 / 255.0)


def _draw(
    whole: SceneMesh,
    table: MaterialTable,
    rig: LightRig,
    pose: PoseSample,
    config: RendererConfig,
) -> tuple[Float32Array, Float32Array, Int32Array]:
    """Return premultiplied linear colour (H, W, 3), coverage (H, W), and head ids of the buffer."""
    step = config.supersampling
    height, width = pose.height * step, pose.width * step
    mesh = whole.mesh
    seen = visible(whole, height, width)
    scales = np.array([float(p.scale_px_per_m or 0.0) for p in pose.people]) * step
    typical = float(np.median(scales))
    map_px = int(config.shadow_map_px * min(max(max(pose.height, pose.width) / 256.0, 1.0), 3.0))
    shadow = cast_shadows(mesh, rig, map_px)
    occlusion = ambient_occlusion(seen.depth, 0.05 * typical)
    image = shade(mesh, seen, table.array(), rig, shadow, occlusion, 1.0 / typical, step)
    covered = (seen.face_index >= 0).astype(np.float32)
    size = (pose.width, pose.height)
    colour = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
    alpha = np.asarray(cv2.resize(covered, size, interpolation=cv2.INTER_AREA), np.float32)
    face_person = np.where(in_head_box(mesh.parts), whole.face_person, -1)
    head_ids = np.where(seen.face_index >= 0, face_person[seen.face_index], -1).astype(np.int32)
    return colour, alpha, head_ids


def _truth(
    pose: PoseSample,
    scene: Scene,
    people: list[PersonMeshes],
    flames: Float32Array,
    head_ids: Int32Array,
    step: int,
) -> list[TruthHead]:
    heads = []
    for index, extent in enumerate(head_extents(head_ids, len(people))):
        if extent.count == 0:
            continue
        own = (people[index].solid, people[index].ragged)
        area, inside = solo_fraction(own, *head_ids.shape)
        look = scene.people[index]
        box = np.array(
            [extent.left, extent.top, extent.right - extent.left, extent.bottom - extent.top],
            np.float32,
        )
        heads.append(
            TruthHead(
                person_id=index,
                bbox_xywh=box / np.float32(step),
                visible=float(min(extent.count / max(area * inside, 1.0), 1.0)),
                inside=inside,
                flame=flames[index],
                skin_tone=look.skin_tone,
                hair_style=look.hair_style,
                glasses=look.glasses,
                hat=look.hat,
            )
        )
    return heads
