"""Training augmentation: which similarity and which look an image gets, on RGB."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ml.imaging.io import decode_image, encode_jpeg
from ml.records.config import Count, Fraction, NonNegative, Positive, StageConfig
from ml.training_data.published_augmentation import published_look, published_similarity
from ml.training_data.similarity import Similarity

Image = NDArray[np.uint8]
Array = NDArray[np.floating]

NUM_OUTLINE_POINTS = 32
"""Directions in which a head's outline is kept; 32 bound a rotated box within 0.5 % of its size."""
_ELSEWHERE = 0.35
"""Fraction of training windows that are put anywhere in the image, not around a head."""


class AugmentConfig(StageConfig):
    """Strength of every random change of a training image; probabilities are per image."""

    recipe: Literal["own", "published"] = "own"
    """own: the strengths below. published: the augmentation of the official training, in which only
    `flip` is configurable (it has none)."""
    flip: Fraction = 0.5
    """Probability of mirroring; requires a head model with a mirror map."""
    rotate: Fraction = 0.3
    """Probability of a rotation in the image plane."""
    rotation_deg: NonNegative = 20.0
    """Maximum rotation, degrees."""
    zoom: tuple[Positive, Positive] = (0.8, 1.3)
    """Minimum and maximum scale, log-uniform."""
    shift: Fraction = 0.12
    """Maximum shift along each axis, as a fraction of the side."""
    colour: Fraction = 0.8
    """Probability of changes of brightness, contrast, hue and saturation."""
    brightness: Fraction = 0.2
    """Maximum relative change of brightness and of contrast."""
    hue: NonNegative = 8.0
    """Maximum change of hue, in OpenCV's units of two degrees."""
    saturation: Fraction = 0.3
    """Maximum relative change of saturation."""
    grey: Fraction = 0.05
    """Probability of conversion to greyscale."""
    blur: Fraction = 0.1
    """Probability of a Gaussian blur."""
    blur_sigma_px: NonNegative = 1.2
    """Maximum sigma of the blur, network px."""
    noise: Fraction = 0.1
    """Probability of additive Gaussian noise."""
    noise_sigma: NonNegative = 8.0
    """Maximum standard deviation of the noise, grey levels."""
    jpeg: Fraction = 0.1
    """Probability of JPEG compression."""
    jpeg_quality: tuple[Count, Count] = (30, 90)
    """Range of the JPEG quality."""


def head_outlines(boxes_xyxy: Array, vertices_px: list[Array | None]) -> NDArray[np.float32]:
    """Return points whose bounds are a head's box, to bound the box tightly after a rotation.

    The projected vertices that lie in the box (what of the head is in sight), stretched so that
    their bounds are the box, which may hold hair too. Where there is no mesh, or it misses its
    box, an ellipse is used instead.

    Args:
        boxes_xyxy: (N, 4) image frame, px.
        vertices_px: N projected meshes (V, 2) or (V, 3), or None.

    Returns:
        (N, 32, 2) float32 image frame, px.
    """
    angles = np.arange(NUM_OUTLINE_POINTS) * (2 * np.pi / NUM_OUTLINE_POINTS)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)  # (32, 2)
    outlines = np.empty((len(boxes_xyxy), NUM_OUTLINE_POINTS, 2), np.float32)
    for outline, box, vertices in zip(outlines, boxes_xyxy, vertices_px, strict=True):
        low, high = box[:2], box[2:]
        points = directions
        if vertices is not None:
            xy = vertices[:, :2]
            # 16 vertices and a third of the box: a mesh that covers less belongs to another place,
            # as with a wrong label, and does not describe the outline.
            seen = xy[((xy >= low) & (xy <= high)).all(axis=1)]
            if len(seen) >= 16 and (np.ptp(seen, axis=0) > 0.3 * (high - low)).all():
                # The extreme vertex in each direction: 32 corners of the convex hull, (32, 2).
                points = seen[(seen @ directions.T).argmax(axis=0)]
        start, extent = points.min(axis=0), np.ptp(points, axis=0)
        outline[:] = low + (points - start) / extent * (high - low)
    return outlines


def random_similarity(
    height: int,
    width: int,
    size: int,
    config: AugmentConfig,
    rng: np.random.Generator,
    window: int | None = None,
    centres_px: Array | None = None,
) -> Similarity:
    """Draw a similarity around the letterboxed image, or around something in it.

    Args:
        height: of the image, px.
        width: of the image, px.
        size: side of the square that the whole image is scaled to, px.
        config: strengths.
        rng: source of randomness; always draws equally often.
        window: side of the square result, px; `size` if left out.
        centres_px: (N, 2) image px, of which one comes to the middle of the window; at times
            some other point does, for a network must also see where no head is. Left out: the
            image's own centre.

    Returns:
        The similarity from the image to the window.
    """
    window = window or size
    if config.recipe == "published":
        return published_similarity(height, width, window, rng, config.flip)
    # All draws first and always: which of them are used never shifts the random numbers behind.
    flip, turn, chosen, anywhere, x, y = rng.random(6)
    angle, log_zoom, dx, dy = rng.uniform(-1, 1, 4)
    low, high = np.log(config.zoom)
    # uniform in the logarithm
    zoom = float(np.exp((low + high) / 2 + log_zoom * (high - low) / 2)) * size / max(height, width)
    angle_rad = float(np.deg2rad(config.rotation_deg) * angle) if turn < config.rotate else 0.0
    focus = np.array([width / 2, height / 2])
    if centres_px is not None:
        focus = np.array([x * width, y * height])
        if len(centres_px) and anywhere >= _ELSEWHERE:
            focus = centres_px[int(chosen * len(centres_px))].astype(float)
    if flip < config.flip:
        focus[0] = width - focus[0]
    # The shift that brings the focus, already scaled and rotated, to the middle of the window.
    turned = Similarity(zoom, angle_rad).points(focus)
    shift = window / 2 + config.shift * window * np.array([dx, dy]) - turned
    return Similarity(
        zoom,
        angle_rad,
        (float(shift[0]), float(shift[1])),
        float(width) if flip < config.flip else None,
    )


def change_look(image_rgb: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Change colour and sharpness, add noise and compression; geometry stays.

    Args:
        image_rgb: (H, W, 3) uint8.
        config: strengths.
        rng: source of randomness.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if config.recipe == "published":
        return published_look(image_rgb, rng)
    image = image_rgb
    if rng.random() < config.colour:
        image = _recoloured(image, config, rng)
    if rng.random() < config.grey:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    if rng.random() < config.blur:
        sigma = float(rng.uniform(0.3, config.blur_sigma_px))
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    if rng.random() < config.noise:
        strength = np.float32(rng.uniform(1.0, config.noise_sigma))
        noise = rng.standard_normal(image.shape, np.float32) * strength  # (H, W, 3) grey levels
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg:
        image = _recompressed(image, int(rng.integers(*config.jpeg_quality, endpoint=True)))
    return np.asarray(image, np.uint8)


def _recoloured(image: Image, config: AugmentConfig, rng: np.random.Generator) -> Image:
    """Change brightness and contrast about the mean by a table, then hue and saturation in HSV."""
    contrast, gain = 1 + config.brightness * rng.uniform(-1, 1, 2)
    hue = rng.uniform(-config.hue, config.hue)
    saturation = 1 + config.saturation * rng.uniform(-1, 1)
    mean = float(image[::4, ::4].mean())  # a sixteenth of the pixels tells it
    levels = np.arange(256)
    table = np.clip((levels - mean) * contrast + mean * gain, 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(cv2.LUT(image, table), cv2.COLOR_RGB2HSV)
    tables = np.stack(
        # OpenCV stores hue in steps of 2 degrees, 0 to 179.
        [(levels + round(hue)) % 180, np.clip(levels * saturation, 0, 255), levels],
        axis=-1,
    ).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB), np.uint8)


def _recompressed(image: Image, quality: int) -> Image:
    """Recompress an image once through JPEG in memory."""
    return decode_image(encode_jpeg(image, quality))
