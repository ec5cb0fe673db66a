"""The published training's augmentation, on RGB: looks by kornia, geometry as a similarity.

Source: the official configuration. It changes BGR images with filters meant for RGB and changes
the validation's images too; here only training images are changed, and in RGB.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ml.training_data.similarity import Similarity

Change = Callable[[Tensor, np.random.Generator], Tensor]
"""(1, 3, H, W) RGB in [0, 1] and a source of randomness -> the changed image."""

_AFFINE, _QUARTER_TURN = 0.35, 0.2
_ROTATION_DEG, _ZOOM, _SHIFT = 45.0, (0.5, 2.0), 0.1
_CONTRAST, _HSV = 0.5, 0.5


def published_similarity(
    height: int, width: int, size: int, rng: np.random.Generator, flip: float = 0.0
) -> Similarity:
    """Draw the published geometry: rotation and zoom about a shifted centre, quarter turns.

    The published code draws the three steps on the image's own canvas, one after the other; their
    product with the letterbox is one similarity. Where the canvas is not square, what a rotation
    turns out of it stays visible here.

    Args:
        height: of the image, px.
        width: of the image, px.
        size: side of the network's square input, px.
        rng: source of randomness; always draws equally often.
        flip: probability of mirroring; the published training does not.

    Returns:
        The similarity from the image to the letterboxed square.
    """
    affine, turn, mirror = rng.random(3)
    angle, low_x, low_y = rng.uniform(-1, 1, 3)
    zoom = float(rng.uniform(*_ZOOM))
    quarters = int(rng.integers(4)) if turn < _QUARTER_TURN else 0
    angle_rad = math.radians(_ROTATION_DEG) * float(angle)
    if affine >= _AFFINE:
        zoom, angle_rad = 1.0, 0.0
    middle = np.array([width / 2, height / 2])
    centre = middle + _SHIFT * np.array([low_x * width, low_y * height])
    fit = size / max(height, width)
    whole = Similarity(fit * zoom, angle_rad + quarters * math.pi / 2)
    # The centre of rotation stays in the affine step; the quarter turn is about the middle.
    quarter = Similarity(fit, quarters * math.pi / 2).matrix()[:, :2]
    moved = quarter @ (centre - middle) - whole.matrix()[:, :2] @ centre
    shift = moved + size / 2
    return Similarity(
        whole.zoom,
        whole.angle_rad,
        (float(shift[0]), float(shift[1])),
        float(width) if mirror < flip else None,
    )


def published_look(image_rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the published changes of sharpness, noise, quality and colour.

    Args:
        image_rgb: (H, W, 3) uint8.
        rng: source of randomness; torch's own generator is left as it was.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image = torch.from_numpy(np.ascontiguousarray(image_rgb.transpose(2, 0, 1)))[None] / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        for probability, changes in _steps():
            if rng.random() < probability:
                image = changes[int(rng.integers(len(changes)))](image, rng).clamp(0, 1)
    changed = (image[0] * 255).round().to(torch.uint8).numpy().transpose(1, 2, 0)
    return np.ascontiguousarray(changed)


@lru_cache(maxsize=1)
def _steps() -> list[tuple[float, list[Change]]]:
    """Return each step's probability and the changes of which it takes one, equally often."""
    import kornia.augmentation as k

    blurs: list[Change] = [
        _of(k.RandomGaussianBlur((9, 9), (0.5, 2.0), p=1.0)),
        _of(k.RandomBoxBlur((5, 5), p=1.0)),
        _of(k.RandomGaussianBlur((7, 7), (0.3, 1.5), p=1.0)),
        _of(k.RandomMotionBlur((3, 7), 180.0, 1.0, p=1.0)),
        _defocus,
    ]
    noises: list[Change] = [_gaussian_noise, _sensor_noise, _multiplied]
    qualities: list[Change] = [_downscaled, _of(k.RandomJPEG((20.0, 80.0), p=1.0))]
    limit = 20 / 255
    return [
        (0.2, blurs),
        (0.2, noises),
        (0.2, qualities),
        (0.125, [_of(k.RandomRGBShift(limit, limit, limit, p=1.0))]),
        (0.05, [_of(k.RandomChannelShuffle(p=1.0))]),
        (0.05, [_sepia, _of(k.RandomGrayscale(p=1.0))]),
        (_CONTRAST, [_brightness_contrast]),
        (_HSV, [_hsv]),
    ]


def _of(augmentation: Any) -> Change:
    """Return a change by one of kornia's random modules, which draw from torch's generator."""

    def change(image: Tensor, rng: np.random.Generator) -> Tensor:
        changed: Tensor = augmentation(image)
        return changed

    return change


def _defocus(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a disc of 3 to 5 px radius."""
    from kornia.filters import filter2d

    radius = int(rng.integers(3, 6))
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    disc = (axis[:, None].square() + axis.square() <= radius * radius).float()
    blurred: Tensor = filter2d(image, (disc / disc.sum())[None], border_type="reflect")
    return blurred


def _gaussian_noise(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Add noise of variance 10 to 50 grey levels squared."""
    return image + torch.randn_like(image) * math.sqrt(rng.uniform(10, 50)) / 255


def _sensor_noise(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Add noise of hue, and of lightness in proportion to it, as of a sensor at high ISO."""
    from kornia.color import hls_to_rgb, rgb_to_hls

    hue, intensity = rng.uniform(0.01, 0.05), rng.uniform(0.1, 0.5)
    h, light, s = rgb_to_hls(image).unbind(dim=1)
    h = (h + torch.randn_like(h) * hue * 2 * math.pi) % (2 * math.pi)
    light = light + torch.randn_like(light) * intensity * 0.1 * light.clamp(0, 1).sqrt()
    changed: Tensor = hls_to_rgb(torch.stack([h, light.clamp(0, 1), s], dim=1))
    return changed


def _multiplied(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Return all values times 0.9 to 1.1."""
    return image * float(rng.uniform(0.9, 1.1))


def _downscaled(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Scale down to 25 to 75 % by the nearest pixel, and up again."""
    size = image.shape[2:]
    small = [max(1, round(side * float(rng.uniform(0.25, 0.75)))) for side in size[:1]]
    fraction = small[0] / size[0]
    target = (small[0], max(1, round(size[1] * fraction)))
    return functional.interpolate(functional.interpolate(image, target), size)


def _sepia(image: Tensor, rng: np.random.Generator) -> Tensor:
    from kornia.color import sepia

    toned: Tensor = sepia(image, rescale=False)
    return toned


def _brightness_contrast(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Return (x - m) c + m b with the channel's mean m, and b and c in 0.8 to 1.2."""
    contrast, brightness = (float(value) for value in rng.uniform(0.8, 1.2, 2))
    mean = image.mean(dim=(2, 3), keepdim=True)
    return (image - mean) * contrast + mean * brightness


def _hsv(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift up to 20 of 180 hue, 20 of 255 saturation and value.

    Each kept as it is half the time.
    """
    from kornia.color import hsv_to_rgb, rgb_to_hsv

    offsets = rng.integers(-20, 21, 3) * (rng.random(3) < 0.5)
    h, s, v = rgb_to_hsv(image).unbind(dim=1)
    h = (h + float(offsets[0]) / 180 * 2 * math.pi) % (2 * math.pi)
    s = (s + float(offsets[1]) / 255).clamp(0, 1)
    v = (v + float(offsets[2]) / 255).clamp(0, 1)
    changed: Tensor = hsv_to_rgb(torch.stack([h, s, v], dim=1))
    return changed
