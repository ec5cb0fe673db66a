"""ViTPose with a person detector, both through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from ml.imaging.boxes import nms, xyxy_to_xywh
from ml.poses.config import EstimatorConfig
from ml.poses.estimator import FoundPeople
from ml.records.models import Model, ModelError, choose_device, require

_NMS_IOU: Final = 0.7
_EXPERT: Final = 0
"""Which data set's head a mixture-of-experts ViTPose uses: 0 is COCO."""


class VitPoseEstimator:
    """Boxes of persons from a detector, keypoints of each box from ViTPose."""

    def __init__(self, config: EstimatorConfig, root: Path) -> None:
        """Load both models.

        Args:
            config: the models, threshold and device.
            root: the project folder, to which models' paths are relative.

        Raises:
            ModelError: a model is not named, not there, not the one meant, cannot be loaded, or
                the detector knows no person.
        """
        from transformers import (
            AutoImageProcessor,
            AutoModelForObjectDetection,
            VitPoseForPoseEstimation,
        )

        self._config = config
        self._device = choose_device(config.device)
        where = "poses.images.estimator"
        detector = require(config.person_detector, f"{where}.person_detector", "vitpose", root)
        pose = require(config.pose_model, f"{where}.pose_model", "vitpose", root)
        self._detector = detector.load(AutoModelForObjectDetection).to(self._device).eval()
        self._pose = pose.load(VitPoseForPoseEstimation).to(self._device).eval()
        # The pure Python processor gives the same numbers with and without torchvision.
        self._detector_input = detector.load_part(AutoImageProcessor, backend="pil")
        self._pose_input = pose.load_part(AutoImageProcessor, backend="pil")
        self._person = _person_label(self._detector, detector)
        self._is_mixture = self._pose.config.backbone_config.num_experts > 1
        self.version = "+".join(f"{m.name}@{m.version[:12]}" for m in (detector, pose))

    def estimate(self, images_rgb: Sequence[np.ndarray]) -> list[FoundPeople]:
        """Find the people of some images.

        Args:
            images_rgb: (H, W, 3) uint8 RGB each, sizes may differ.

        Returns:
            For every image its people, most certain first.
        """
        with torch.inference_mode():
            found = self._boxes(images_rgb)
            occupied = [i for i, (boxes, _) in enumerate(found) if len(boxes)]
            people = [FoundPeople.none() for _ in images_rgb]
            if occupied:
                images = [images_rgb[i] for i in occupied]
                keypoints = self._keypoints(images, [found[i][0] for i in occupied])
                for index, points in zip(occupied, keypoints, strict=True):
                    people[index] = FoundPeople(points, found[index][1])
        return people

    def close(self) -> None:
        """Do nothing: there is nothing to give back."""

    def _boxes(self, images_rgb: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (P, 4) left, top, right, bottom px and (P,) scores of each image's persons."""
        inputs = self._detector_input(images=list(images_rgb), return_tensors="pt")
        outputs = self._detector(**inputs.to(self._device))
        sizes = [image.shape[:2] for image in images_rgb]
        results = self._detector_input.post_process_object_detection(
            outputs, threshold=self._config.threshold, target_sizes=sizes
        )
        found = []
        for result, (height, width) in zip(results, sizes, strict=True):
            own = result["labels"] == self._person
            boxes, scores = result["boxes"][own].float().cpu(), result["scores"][own].float().cpu()
            boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
            boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
            large = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= 1
            boxes, scores = boxes[large], scores[large]
            order = nms(boxes, scores, _NMS_IOU, self._config.max_people)
            found.append((boxes[order].numpy(), scores[order].numpy()))
        return found

    def _keypoints(
        self, images_rgb: Sequence[np.ndarray], boxes_xyxy: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Return (P, 17, 3) x px, y px, confidence of each image's boxes."""
        boxes = [xyxy_to_xywh(b) for b in boxes_xyxy]
        inputs = self._pose_input(list(images_rgb), boxes=boxes, return_tensors="pt")
        count = len(inputs["pixel_values"])
        expert = {"dataset_index": torch.full((count,), _EXPERT, device=self._device)}
        outputs = self._pose(**inputs.to(self._device), **(expert if self._is_mixture else {}))
        results = self._pose_input.post_process_pose_estimation(outputs, boxes=boxes)
        return [
            np.stack(
                [
                    np.concatenate([p["keypoints"].cpu(), p["scores"].cpu()[:, None]], axis=1)
                    for p in people
                ]
            ).astype(np.float32)
            for people in results
        ]


def _person_label(detector: Any, model: Model) -> int:
    labels = {str(name).lower(): int(index) for index, name in detector.config.id2label.items()}
    if "person" not in labels:
        raise ModelError(
            f"model '{model.name}': a detector of persons needs the label 'person', got "
            f"{sorted(labels)[:8]}"
        )
    return labels["person"]
