"""The model card: what a detector is, what it was trained on, how good it is, who may use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from ml.records.config import parse_yaml

UNKNOWN_LICENCE = "unknown"
_GROUND_TRUTH = {
    "pseudo": "pseudo-labels, as another model found them, and not with exact ground truth",
    "truth": "exact ground truth",
}
_METRICS = {
    "val/ap50": ("AP at IoU 0.5", ""),
    "val/nme_bbox": ("NME over the box size", " %"),
    "val/rotation_deg": ("rotation error", " degrees"),
    "val/recall": ("recall", ""),
    "val/precision": ("precision", ""),
}


def dataset_licence(card: Path) -> str:
    """Return the licence that a dataset card states.

    Args:
        card: the dataset's CARD.md.

    Returns:
        Its `license`, `other` when parents have several; `unknown` without a card.
    """
    if not card.is_file():
        return UNKNOWN_LICENCE
    parts = card.read_text().split("---\n")
    front = parse_yaml(parts[1]) if len(parts) > 2 else None
    return str(front.get("license", UNKNOWN_LICENCE)) if isinstance(front, dict) else "unknown"


def model_card(
    name: str,
    num_parameters: int,
    image_size: int,
    supervision: str,
    licence: str,
    head_model_sha256: str,
    metrics: Mapping[str, float],
    num_images: int,
) -> str:
    """Return the card as Markdown with the front matter that model hubs read.

    Args:
        name: size of the model.
        num_parameters: of the network as trained.
        image_size: side of its square input, px.
        supervision: what its labels were.
        licence: of the data it was trained on, which it inherits.
        head_model_sha256: the head model that its parameters belong to.
        metrics: the training's last metrics by name.
        num_images: validation images that these were measured on.

    Returns:
        The text.
    """
    front = yaml.safe_dump(
        {"license": licence, "pipeline_tag": "object-detection", "library_name": "vggheads"},
        sort_keys=False,
    )
    rows = [
        f"| {label} | {metrics[key]:.4g}{unit} |"
        for key, (label, unit) in _METRICS.items()
        if key in metrics
    ]
    table = "\n".join(["| metric | value |", "|---|---|", *rows]) if rows else "none"
    return f"""---
{front}---

# Head detector, size {name}

Finds every head in an image in one pass, with the parameters of its 3D mesh (300 shape, 100
expression, 3 jaw, 6 rotation, 3 translation, 1 scale, in pixels of the image).

* {num_parameters:,} parameters, input {image_size} px, RGB.
* Trained on {supervision} labels.
* The parameters belong to the head model `{head_model_sha256[:12]}`; another one gives other faces.
* Licence: {licence}. It is that of the data the model was trained on; its card says more.

## Metrics on the validation images

{table}

They compare with {_GROUND_TRUTH.get(supervision, supervision)}, measured on {num_images:,} images
that were held out from the training data; they are photographs only if the training images are.
The benchmark's report has others, and says what it compared with.

## Limits

Errors differ between skin tones: a detector of the demo has larger ones on the same heads in tones
8 to 10 (docs/metrics.md). Where the ground truth holds tones, the benchmark's report states NME and
rotation error by Monk skin tone, with intervals, and `python -m benchmarks.skin_tones` renders the
same heads in each. Do not assume that errors are equal.
Heads under a few pixels are missed. Depth along the camera's axis is not learned. A 3D face is
biometric information in many places: do not identify people with it.
"""
