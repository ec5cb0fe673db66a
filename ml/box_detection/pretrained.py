"""RT-DETR, RT-DETR v2 and D-FINE from a folder in the library's format, at their own input size.

Source: the paper filters with an RT-DETR at 640 px, fed with squashed images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import torch
from transformers import RTDetrForObjectDetection

from ml.box_detection.base import Boxes, Image, Scores
from ml.box_detection.rtdetr import (
    INPUT_FILE,
    PRETRAINED_INPUT_SIZE,
    WEIGHTS_FILE,
    RTDetrDetector,
    decode,
    forward,
    images_to_tensor,
    keep_best,
)
from ml.imaging.boxes import clip_boxes
from ml.imaging.letterbox import letterbox_image
from ml.records.atomic import write_json
from ml.records.config import Count, Index, StageConfig
from ml.records.models import ModelError, ModelRef

Fit = Literal["squash", "letterbox"]
FAMILIES: Final[Mapping[str, tuple[str, str]]] = {
    "rt_detr": ("RTDetrForObjectDetection", "rt-detr"),
    "rt_detr_v2": ("RTDetrV2ForObjectDetection", "rt-detr-v2"),
    "d_fine": ("DFineForObjectDetection", "d-fine"),
}
"""`model_type` in config.json -> the library's class, and the name recorded with every head."""


class Feeding(StageConfig):
    """Preprocessing of a checkpoint, which the library's files do not state."""

    input_size: Count = PRETRAINED_INPUT_SIZE
    """Side of the square input, px; a multiple of 32."""
    fit: Fit = "squash"
    """`squash` stretches images to a square, as in the training of these checkpoints and in the
    official filtering; `letterbox` preserves the aspect ratio and pads with grey."""
    labels: tuple[Index, ...] = ()
    """Labels of the checkpoint that count as heads; default: all, as in the official filtering."""


class PretrainedConfig(Feeding):
    """A third-party checkpoint."""

    model: ModelRef | None = None
    """Its folder: config.json and model.safetensors of RT-DETR (v1, v2) or D-FINE."""


@dataclass
class FamilyDetector:
    """A detector of one of the families, as box detector.

    Attributes:
        model: the network, in evaluation mode.
        feeding: how images are fed.
        name: the family's.
        sha256: hash of the weights.
        batch_size: images in one forward pass.
        device: torch device.
    """

    model: RTDetrForObjectDetection
    feeding: Feeding
    name: str
    sha256: str
    batch_size: int = 8
    device: str = "cpu"

    def detect(self, images: Sequence[Image]) -> list[tuple[Boxes, Scores]]:
        """Find heads.

        Args:
            images: (H, W, 3) uint8 RGB each, sizes may differ.

        Returns:
            For every image (N, 4) boxes xyxy in its px, clipped to it, without duplicates, and (N,)
            scores, best first.
        """
        found: list[tuple[Boxes, Scores]] = []
        for start in range(0, len(images), self.batch_size):
            found += self._detect_batch(images[start : start + self.batch_size])
        return found

    @torch.inference_mode()
    def _detect_batch(self, images: Sequence[Image]) -> list[tuple[Boxes, Scores]]:
        size = self.feeding.input_size
        fed = [feed(image, self.feeding) for image in images]
        output = forward(
            self.model, images_to_tensor([square for square, _ in fed]).to(self.device)
        )
        if self.feeding.labels:
            output = replace(output, logits=output.logits[..., list(self.feeding.labels)])
        boxes, scores = (values.float().cpu().numpy() for values in decode(output, size))
        return [
            keep_best(clip_boxes(to_image(boxes_of), image.shape[1], image.shape[0]), scores_of)
            for boxes_of, scores_of, (_, to_image), image in zip(
                boxes, scores, fed, images, strict=True
            )
        ]


@dataclass(frozen=True)
class _Stretch:
    """Boxes of a squashed image back to its pixels."""

    factors: tuple[float, float]

    def __call__(self, boxes_xyxy: Boxes) -> Boxes:
        return np.asarray(boxes_xyxy * np.array(self.factors * 2, np.float32), np.float32)


def feed(image_rgb: Image, feeding: Feeding) -> tuple[Image, Any]:
    """Return the square a network sees, and the way back for its boxes.

    Args:
        image_rgb: (H, W, 3) uint8.
        feeding: size and fit.

    Returns:
        (S, S, 3) uint8, and a function of boxes in network px that gives boxes in image px.

    Raises:
        ValueError: the image is empty or not RGB.
    """
    size = feeding.input_size
    if feeding.fit == "letterbox":
        square, letterbox = letterbox_image(image_rgb, size)
        return square, letterbox.boxes_to_image
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or not image_rgb.size:
        raise ValueError(f"image_rgb: expected (H, W, 3) with pixels, got {image_rgb.shape}")
    from PIL import Image as Pillow

    # Lanczos with a support that grows as the image shrinks, as official; OpenCV's would alias.
    resized = Pillow.fromarray(image_rgb).resize((size, size), Pillow.Resampling.LANCZOS)
    height, width = image_rgb.shape[:2]
    return np.asarray(resized, np.uint8), _Stretch((width / size, height / size))


def load_network(
    location: str | Path, num_labels: int | None = None, variant: str = "", **arguments: Any
) -> RTDetrForObjectDetection:
    """Load a network of one of the families.

    Args:
        location: folder, or a hub's repository.
        num_labels: number of labels, with new class layers if it had another number.
        variant: which of several sets of weights, such as fp16; the plain one if left out.
        arguments: for the library's `from_pretrained`.

    Returns:
        The network; the three families share what is used of RT-DETR's interface.

    Raises:
        ModelError: config or weights are missing, or it is of another family.
    """
    import transformers

    folder = Path(location)
    if folder.is_dir():
        weights = f"model.{variant}.safetensors" if variant else WEIGHTS_FILE
        for needed in ("config.json", weights):
            if not (folder / needed).is_file():
                raise ModelError(
                    f"box detector: no {needed} in {folder}; run the stage head_detector, or "
                    "point to a folder with a transformers RT-DETR or D-FINE in safetensors; it "
                    f"has {', '.join(p.name for p in sorted(folder.iterdir())) or 'no file'}"
                )
    config = transformers.AutoConfig.from_pretrained(str(location), **arguments)
    if config.model_type not in FAMILIES:
        raise ModelError(
            f"box detector: {location} holds a {config.model_type!r}, expected one of "
            f"{list(FAMILIES)}"
        )
    network = getattr(transformers, FAMILIES[config.model_type][0])
    resize: dict[str, Any] = {}
    if num_labels is not None:
        resize = {"num_labels": num_labels, "ignore_mismatched_sizes": True}
    loaded = network.from_pretrained(
        str(location),
        use_safetensors=True,
        dtype=torch.float32,
        variant=variant or None,
        **resize,
        **arguments,
    )
    return cast(RTDetrForObjectDetection, loaded)


def save_with_feeding(model: RTDetrForObjectDetection, feeding: Feeding, folder: Path) -> None:
    """Write a network, with its preprocessing.

    Args:
        model: the network.
        feeding: its input.
        folder: created if missing.
    """
    RTDetrDetector(model, feeding.input_size).save_pretrained(folder)
    write_json(folder / INPUT_FILE, feeding.model_dump(mode="json"))


def load_family_detector(folder: Path, device: str = "cpu", batch_size: int = 8) -> FamilyDetector:
    """Load a folder of `save_with_feeding`, or one of the library.

    Args:
        folder: holds config.json, model.safetensors and perhaps input.json.
        device: torch device.
        batch_size: images in one forward pass.

    Returns:
        The detector.

    Raises:
        ModelError: config or weights are missing, or it is of another family.
    """
    model = load_network(folder, local_files_only=True)
    model.eval()
    torch.nn.Module.to(model, device)
    record = folder / INPUT_FILE
    values = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    # A record of the size alone is that of a training here, which letterboxes.
    feeding = Feeding(**({"fit": "letterbox", **values} if values else {}))
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    name = FAMILIES[model.config.model_type][1]
    return FamilyDetector(model, feeding, name, digest, batch_size, device)


def is_own_format(folder: Path) -> bool:
    """Return whether a folder holds what the stage trains from scratch: a letterboxed RT-DETR."""
    config, record = folder / "config.json", folder / INPUT_FILE
    if not (config.is_file() and record.is_file()):
        return False
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    return kind == "rt_detr" and "fit" not in json.loads(record.read_text(encoding="utf-8"))
