"""One person as meshes in image pixels: body, head, hair, things worn and held."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from ml.captions.scene import PersonLook
from ml.flame.head_model import HeadModel
from ml.flame.layer import FlameLayer
from ml.flame.open_head.body import build_bodies
from ml.flame.params import EXPRESSION, JAW, NUM_PARAMETERS, ROTATION, SCALE, SHAPE, TRANSLATION
from ml.generation.config import HeadVariation
from ml.generation.renderer.accessories import glasses_mesh, held_object
from ml.generation.renderer.bodies import body_meshes
from ml.generation.renderer.body_frame import body_frame
from ml.generation.renderer.garments import dress
from ml.generation.renderer.hair import headwear
from ml.generation.renderer.head_assets import HeadAssets, prepare_head, skull_radius
from ml.generation.renderer.heads import beard_mesh, head_materials, head_mesh
from ml.generation.renderer.materials import MaterialTable
from ml.generation.renderer.meshes import Mesh, join
from ml.generation.renderer.necks import NeckSeam, join_neck, prepare_seam
from ml.imaging.rasterizer import Float32Array
from ml.poses.skeleton import Person
from ml.records.determinism import one_thread


@dataclass(frozen=True)
class HeadKit:
    """A head model prepared for rendering."""

    model: HeadModel
    layer: FlameLayer
    assets: HeadAssets
    rest_radius: Float32Array
    seam: NeckSeam


@dataclass(frozen=True)
class PersonMeshes:
    """A person in buffer pixels.

    Attributes:
        solid: closed surfaces.
        ragged: surfaces that are cut at their cover value.
        head_vertices: place of the head model's vertices in `solid`.
        head_faces: place of its drawn faces.
        gaze: (3,) unit vector of the looking direction, image axes.
    """

    solid: Mesh
    ragged: Mesh
    head_vertices: slice
    head_faces: slice
    gaze: np.ndarray


@lru_cache(maxsize=2)
def head_kit(head_model: HeadModel) -> HeadKit:
    """Prepare a head model once per process.

    Args:
        head_model: the model.

    Returns:
        Its kit.
    """
    layer = FlameLayer(head_model)
    with one_thread(), torch.inference_mode():
        zero = torch.zeros(1, NUM_PARAMETERS)
        template = layer.vertices(zero)[0].numpy()
        landmarks = layer.landmarks(zero)[0].numpy()
    assets = prepare_head(
        template, head_model.faces, head_model.regions, landmarks, head_model.attributes
    )
    seam = prepare_seam(assets, build_bodies()[0])
    return HeadKit(head_model, layer, assets, skull_radius(assets, template), seam)


def draw_flame(person: Person, variation: HeadVariation, rng: np.random.Generator) -> Float32Array:
    """Return a head's 413 parameters: pose from the skeleton, shape and expression by chance.

    Args:
        person: with known third dimension.
        variation: variation of the heads.
        rng: source of chance.

    Returns:
        (413,) float32, image frame, px.
    """
    flame = np.zeros(NUM_PARAMETERS, np.float32)
    shape = rng.standard_normal(variation.num_shape) * variation.shape_std
    flame[SHAPE][: variation.num_shape] = np.clip(shape, -2.5, 2.5)
    strength = variation.expression_std * rng.beta(1.2, 1.6)
    expression = rng.standard_normal(variation.num_expression) * strength
    flame[EXPRESSION][: variation.num_expression] = np.clip(expression, -2.5, 2.5)
    if rng.random() < variation.jaw_open_fraction:
        flame[JAW] = (
            variation.jaw_open_max_rad * rng.beta(1.3, 2.2),
            rng.normal(0.0, 0.02),
            rng.normal(0.0, 0.01),
        )
    rotation = np.asarray(person.head_rotation, np.float64)
    flame[ROTATION] = np.concatenate([rotation[:, 0], rotation[:, 1]])
    scale = float(person.scale_px_per_m or 0.0)
    shift = np.asarray(person.shift_px, np.float64)
    centre = np.asarray(person.head_centre_m, np.float64)
    flame[TRANSLATION] = *(scale * centre[:2] + shift), 0.0
    flame[SCALE] = scale
    return flame


def deform(kit: HeadKit, flames: Float32Array, variation: HeadVariation) -> Float32Array:
    """Return vertices of heads in the template frame.

    Args:
        kit: the head model's.
        flames: (N, 413).
        variation: defines how many coefficients can differ from 0.

    Returns:
        (N, V, 3) float32 metres.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(flames))
    shape = tensor[:, SHAPE][:, : variation.num_shape]
    expression = tensor[:, EXPRESSION][:, : variation.num_expression]
    with one_thread(), torch.inference_mode():
        vertices = kit.layer(shape, expression, tensor[:, JAW])
    return np.ascontiguousarray(vertices.numpy())


def person_meshes(
    person: Person,
    look: PersonLook,
    kit: HeadKit,
    vertices: Float32Array,
    table: MaterialTable,
    depth_px: float,
    height_px: int,
    supersampling: int,
    prop_probability: float,
    rng: np.random.Generator,
) -> PersonMeshes:
    """Return all meshes of one person, placed in the buffer.

    Args:
        person: with known third dimension.
        look: the caption's words.
        kit: the head model's.
        vertices: (V, 3) deformed head, template frame.
        table: receives materials.
        depth_px: added to z, image pixels.
        height_px: of the image.
        supersampling: buffer pixels per image pixel.
        prop_probability: probability that a hand holds something.
        rng: source of chance.

    Returns:
        The meshes, buffer pixels.
    """
    rotation = np.asarray(person.head_rotation, np.float64)
    centre = np.asarray(person.head_centre_m, np.float64)
    scale = float(person.scale_px_per_m or 0.0)
    materials = head_materials(look, table, rng)
    frame = body_frame(np.asarray(person.joints_m), centre, rotation)
    head, gaze = head_mesh(kit.assets, vertices, materials, look.hair_style, table, rng)
    gravity = rotation.T @ np.array([0.0, 1.0, 0.0])
    radius = skull_radius(kit.assets, vertices)
    worn = headwear(kit.assets, radius, kit.rest_radius, look, materials, gravity, table, rng)
    ragged = list(worn.ragged)
    if look.beard == "beard":
        ragged.append(beard_mesh(kit.assets, vertices, materials, float(rng.uniform(0.004, 0.016))))
    solid = [*worn.solid, *glasses_mesh(kit.assets, vertices, look.glasses, table, rng)]
    garments = dress(look, materials.skin, table, rng)
    shift = np.asarray(person.shift_px, np.float64)
    border = (height_px - float(shift[1])) / scale
    clothed = body_meshes(frame, garments, look, scale * supersampling, rng, border)
    head = join_neck(
        kit.seam, kit.assets, head, rotation.T @ frame.trunk_axes(),
        (clothed.loop - centre) @ rotation, clothed.loop_normals @ rotation,
    )  # fmt: skip
    body, solid = list(clothed.pieces), [head, *solid]
    for side in ("left", "right"):
        if rng.random() < prop_probability:
            body += held_object(frame, side, table, rng)
    placed = join([*body, *(mesh.moved(rotation, centre) for mesh in solid)])
    cut = join([mesh.moved(rotation, centre) for mesh in ragged])
    gain = np.float32(scale * supersampling)
    origin = (np.array([*shift, depth_px]) * supersampling).astype(np.float32)
    first_vertex = sum(len(mesh.positions) for mesh in body)
    first_face = sum(len(mesh.faces) for mesh in body)
    return PersonMeshes(
        solid=replace(placed, positions=placed.positions * gain + origin),
        ragged=replace(cut, positions=cut.positions * gain + origin),
        head_vertices=slice(first_vertex, first_vertex + len(head.positions)),
        head_faces=slice(first_face, first_face + len(head.faces)),
        gaze=rotation @ gaze,
    )
