"""Runs in the environment of super-gradients: reads images, writes the people found in them.

Imports nothing of this project. Input, for each batch: a line of JSON with `sizes`, height and
width of each image, then height x width x 3 bytes of RGB of each. Output: first the line
{"ready": true}, then for each image a line with `keypoints` (P x 17 x 3: x px, y px, confidence)
and `scores` (P).
"""

import argparse
import json
import os
import sys
from typing import Any, BinaryIO

import numpy as np

_LOWEST = 1e-4
"""super-gradients takes a confidence of 0 for one that was not given."""


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="yolo_nas_pose_l")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    # super-gradients writes to standard output; answers get the real one, all else the log.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    model = load(options.architecture, options.checkpoint, options.device)
    answers.write(json.dumps({"ready": True}) + "\n")
    while images := read_images(sys.stdin.buffer):
        for people in find_people(model, images, options.threshold):
            answers.write(json.dumps(people) + "\n")


def load(architecture: str, checkpoint: str, device: str) -> Any:
    """Return the model with the user's weights.

    Args:
        architecture: such as `yolo_nas_pose_l`.
        checkpoint: file of the weights.
        device: `auto`, `cpu` or `cuda`.
    """
    define_missing_operators()
    from super_gradients.training import models
    from super_gradients.training.processing.processing import (
        default_yolo_nas_pose_coco_processing_params,
    )

    model = models.get(architecture, num_classes=17, checkpoint_path=checkpoint)
    # A checkpoint may carry none, and `predict` refuses to work without.
    model.set_dataset_processing_params(**default_yolo_nas_pose_coco_processing_params())
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device).eval()


def define_missing_operators() -> None:
    """Give torchvision its box suppression where its build does not fit that of torch.

    A torchvision made for CUDA installed with a torch made for CPUs has no compiled operators, and
    then cannot even be imported.
    """
    try:
        import torchvision
    except ImportError:
        # The code that needs it raises a better error.
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return
    import torch

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        operators.impl(name, suppress, "CompositeExplicitAutograd")
    _OPERATORS.append(operators)
    import torchvision.ops.boxes

    torchvision.ops.boxes._assert_has_ops = lambda: None


_OPERATORS: "list[Any]" = []
"""Operators vanish with the library that defines them."""


def suppress(dets: Any, scores: Any, iou_threshold: float) -> Any:
    """Suppress non-maxima greedily, as `torchvision.ops.nms`.

    Args:
        dets: (N, 4) tensor, xyxy px.
        scores: (N,) tensor.
        iou_threshold: of boxes that overlap more, the best stays.

    Returns:
        (K,) int64 positions of the boxes that stay, by falling score.
    """
    left = scores.argsort(descending=True, stable=True)
    areas = (dets[:, 2:] - dets[:, :2]).prod(1)
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = dets[left, :2].maximum(dets[best, :2])
        high = dets[left, 2:].minimum(dets[best, 2:])
        common = (high - low).clamp(min=0).prod(1)
        left = left[common <= iou_threshold * (areas[left] + areas[best] - common)]
    return left.new_tensor(kept)


def read_images(stream: BinaryIO) -> "list[np.ndarray]":
    """Return the next batch.

    Args:
        stream: the input.

    Returns:
        (H, W, 3) uint8 RGB each; empty at the end.

    Raises:
        EOFError: the input ends within an image.
    """
    line = stream.readline()
    images = []
    for height, width in json.loads(line)["sizes"] if line else ():
        shape = (int(height), int(width), 3)
        data = stream.read(int(np.prod(shape)))
        if len(data) != np.prod(shape):
            raise EOFError(f"image: expected {np.prod(shape)} bytes, got {len(data)}")
        images.append(np.frombuffer(data, np.uint8).reshape(shape))
    return images


def find_people(model: Any, images: "list[np.ndarray]", threshold: float) -> "list[dict[str, Any]]":
    """Return people of each image, most certain first.

    Args:
        model: from `load`; it brings all images to one size.
        images: (H, W, 3) uint8 RGB each.
        threshold: lowest confidence of a person.
    """
    found = model.predict(
        images, conf=max(threshold, _LOWEST), batch_size=len(images), fuse_model=False
    )
    # Of a single image super-gradients returns the prediction itself, not a list of one.
    return [_sorted(one.prediction) for one in ([found] if len(images) == 1 else found)]


def _sorted(found: Any) -> "dict[str, Any]":
    scores = np.asarray(found.scores, np.float64).reshape(-1)
    keypoints = np.asarray(found.poses, np.float64).reshape(len(scores), 17, 3)
    order = np.argsort(-scores, kind="stable")
    return {"keypoints": keypoints[order].tolist(), "scores": scores[order].tolist()}


if __name__ == "__main__":
    main()
