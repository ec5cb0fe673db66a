"""Images of a head model for people: turned, varied, moving. Plain shading, no scene."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ml.flame.head_model import HeadModel
from ml.flame.layer import Z_OFFSET_M, FlameLayer
from ml.flame.params import NUM_EXPRESSION, NUM_SHAPE
from ml.flame.rotation import matrix_from_euler_deg
from ml.imaging.grids import contact_sheet
from ml.imaging.rasterizer import interpolate, rasterize, vertex_normals
from ml.records.ids import sample_rng

Image = NDArray[np.uint8]

_COLOURS = {
    "skin": (224, 178, 152), "lips": (178, 92, 88), "sclera": (238, 236, 232),
    "iris": (92, 110, 120), "pupil": (20, 18, 18), "teeth": (234, 228, 212),
    "mouth_interior": (104, 40, 42), "nostril": (84, 42, 36),
}  # fmt: skip
_TINTS = {"brow": ((72, 50, 38), 0.8), "eyelid": ((190, 112, 102), 0.3)}
_GREY = (206, 196, 188)
_BACKGROUND = 245
_KEY = np.array([-0.45, -0.50, -0.74])
_TO_VIEWER = np.array([0.0, 0.0, -1.0])
_FILL = np.array([0.75, -0.10, -0.50])
_TURNS_DEG = (0, 35, 65, 90, 135, 180, -90, -35)


class HeadPainter:
    """Draws heads of one head model in neutral light."""

    def __init__(self, head_model: HeadModel, size_px: int = 224) -> None:
        """Prepare colours and the layer.

        Args:
            head_model: the head model; without attributes it is drawn grey.
            size_px: side of an image, pixels.
        """
        self._layer = FlameLayer(head_model)
        self._faces = head_model.faces
        self._size = size_px
        self._colour = vertex_colours(head_model)
        corners = head_model.v_template + np.array([0.0, 0.0, Z_OFFSET_M])
        self._middle = 0.5 * (corners.min(0) + corners.max(0))
        self._pixels_per_metre = 0.92 * size_px / float(np.ptp(corners, axis=0).max())

    def draw(
        self,
        shape: NDArray | None = None,
        expression: NDArray | None = None,
        jaw: tuple[float, float, float] = (0.0, 0.0, 0.0),
        euler_deg: tuple[float, float, float] = (0.0, 0.0, 0.0),
        zoom: float = 1.0,
    ) -> Image:
        """Return one head.

        Args:
            shape: (<= 300,) shape coefficients, None for the template.
            expression: (<= 100,) expression coefficients.
            jaw: axis-angle, rad.
            euler_deg: pitch, yaw, roll, degrees.
            zoom: 1 shows the whole head; larger shows the face larger.

        Returns:
            (size, size, 3) uint8 RGB.
        """
        coefficients = [
            torch.zeros(1, 0) if c is None else torch.as_tensor(np.asarray(c, np.float32))[None]
            for c in (shape, expression)
        ]
        with torch.inference_mode():
            vertices = self._layer(*coefficients, torch.tensor([jaw]))[0]
            turn = matrix_from_euler_deg(torch.tensor([euler_deg], dtype=torch.float32))[0]
            middle = torch.as_tensor(self._middle * [0.0, 1.0, 0.3], dtype=torch.float32)
            lift = middle + torch.tensor([0.0, 0.028 * (zoom - 1.0), 0.0])
            points = ((vertices - lift) @ turn.T).numpy()
        return self._shade(points, zoom)

    def _shade(self, points: NDArray, zoom: float) -> Image:
        side = 2 * self._size
        pixels = points * (2.0 * self._pixels_per_metre * zoom) + [side / 2, side / 2, 0.0]
        face_index, weights, _ = rasterize(pixels.astype(np.float32), self._faces, side, side)
        # the image frame has y down and z away: a half turn about x, which keeps the orientation
        normals = vertex_normals(points, self._faces)
        values = np.concatenate([self._colour, normals], axis=1)
        values = interpolate(values, self._faces, face_index, weights)
        normal = values[..., 3:]
        normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
        key, fill = (v / np.linalg.norm(v) for v in (_KEY, _FILL))
        light = 0.30 + 0.62 * np.clip(normal @ key, 0, 1) + 0.20 * np.clip(normal @ fill, 0, 1)
        half = key + _TO_VIEWER
        half = half / np.linalg.norm(half)
        shine = 16.0 * np.clip(normal @ half, 0, 1) ** 24
        image = values[..., :3] * light[..., None] + shine[..., None]
        image[face_index < 0] = _BACKGROUND
        image = np.clip(image, 0, 255).astype(np.uint8)
        return cv2.resize(image, (self._size, self._size), interpolation=cv2.INTER_AREA)


def vertex_colours(head_model: HeadModel) -> NDArray[np.float32]:
    """Return neutral colours of the vertices from their attributes.

    Args:
        head_model: the head model.

    Returns:
        (5023, 3) float32 RGB 0..255; grey where the model has no attributes.
    """
    given = head_model.attributes
    if not set(_COLOURS) <= set(given):
        return np.tile(np.array(_GREY, np.float32), (len(head_model.v_template), 1))
    total = np.maximum(sum(given[name] for name in _COLOURS), 1e-3)
    colour = (
        sum(given[n][:, None] * np.array(c, np.float32) for n, c in _COLOURS.items())
        / total[:, None]
    )
    for name, (tint, strength) in _TINTS.items():
        weight = strength * given[name][:, None]
        colour = colour * (1.0 - weight) + np.array(tint, np.float32) * weight
    return np.asarray(colour, dtype=np.float32)


def turntable(head_model: HeadModel) -> Image:
    """Return the template from eight sides, uint8 RGB."""
    painter = HeadPainter(head_model)
    images = [painter.draw(euler_deg=(0.0, float(-yaw), 0.0)) for yaw in _TURNS_DEG]
    return contact_sheet(images, 4, 224, [f"yaw {yaw}" for yaw in _TURNS_DEG])


def random_shapes(head_model: HeadModel, seed: int, count: int = 12) -> Image:
    """Draw heads with N(0, 1) shape coefficients, from the front and the side, uint8 RGB."""
    painter = HeadPainter(head_model)
    images, labels = [], []
    for i in range(count):
        shape = sample_rng(seed, "head_model", f"image-shape-{i}").standard_normal(NUM_SHAPE)
        for yaw in (0.0, (40.0, -70.0, 90.0)[i % 3]):
            images.append(painter.draw(shape=shape, euler_deg=(0.0, yaw, 0.0)))
            labels.append(f"shape {i}")
    return contact_sheet(images, 6, 192, labels)


def random_expressions(head_model: HeadModel, seed: int, count: int = 12) -> Image:
    """Draw heads with N(0, 1) shape and expression coefficients, jaw somewhat open, uint8 RGB."""
    painter = HeadPainter(head_model)
    images = []
    for i in range(count):
        rng = sample_rng(seed, "head_model", f"image-expression-{i}")
        shape, expression = rng.standard_normal(NUM_SHAPE), rng.standard_normal(NUM_EXPRESSION)
        jaw = (float(abs(rng.normal(0.0, 0.12))), 0.0, 0.0)
        euler_deg = (
            float(rng.uniform(-15, 15)),
            float(rng.uniform(-45, 45)),
            float(rng.uniform(-10, 10)),
        )
        images.append(painter.draw(shape, expression, jaw, euler_deg, zoom=1.3))
    return contact_sheet(images, 6, 192)


def component_steps(
    head_model: HeadModel, part: Literal["shape", "expression"], count: int = 10, size: float = 2.0
) -> Image:
    """Return the first components of one kind one by one, both signs, uint8 RGB.

    Args:
        head_model: the head model.
        part: which components.
        count: how many.
        size: in standard deviations; negative above, positive below.
    """
    painter = HeadPainter(head_model)
    names = head_model.shape_names if part == "shape" else head_model.expression_names
    length = NUM_SHAPE if part == "shape" else NUM_EXPRESSION
    images, labels = [], []
    for sign in (-size, size):
        for k in range(count):
            one = np.zeros(length)
            one[k] = sign
            shape, expression = (one, None) if part == "shape" else (None, one)
            zoom = 1.0 if part == "shape" else 1.45
            images.append(painter.draw(shape, expression, euler_deg=(0.0, 25.0, 0.0), zoom=zoom))
            name = names[k] if k < len(names) else part
            labels.append(f"{k} {sign:+.0f} {name}"[:22])
    return contact_sheet(images, count, 160, labels)


def components(head_model: HeadModel, count: int = 12, size: float = 3.0) -> Image:
    """Return the first expression components one by one, and the jaw opening, uint8 RGB."""
    painter = HeadPainter(head_model)
    images, labels = [], []
    for k in range(count):
        expression = np.zeros(NUM_EXPRESSION)
        expression[k] = size
        images.append(painter.draw(expression=expression, euler_deg=(0.0, 15.0, 0.0), zoom=1.45))
        names = head_model.expression_names
        labels.append(names[k] if k < len(names) else f"expression {k}")
    for angle in (0.0, 0.12, 0.24, 0.36):
        images.append(painter.draw(jaw=(angle, 0.0, 0.0), euler_deg=(0.0, 30.0, 0.0), zoom=1.45))
        labels.append(f"jaw {angle:.2f} rad")
    return contact_sheet(images, 8, 192, labels)
