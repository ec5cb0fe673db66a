"""The Lightning module that trains the box detector and measures it on held-out labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from transformers import RTDetrForObjectDetection

from ml.box_detection.base import Boxes, Scores
from ml.box_detection.coco_metrics import average_precision
from ml.box_detection.data import BoxBatch, LabelledImages
from ml.box_detection.dense import DenseSupervision
from ml.box_detection.rtdetr import decode, forward, keep_best
from ml.imaging.boxes import clip_boxes
from ml.imaging.letterbox import Letterbox
from ml.training.base import TrainingModule
from ml.training.optim import OptimConfig


class BoxDetectorModule(TrainingModule):
    """Set prediction (Hungarian matching, denoising queries) helped by dense supervision.

    The set losses (varifocal, L1, GIoU) are the library's, with its weights (1, 5, 2). Matching
    takes little of a step: there are a few dozen queries and a handful of heads.
    """

    def __init__(
        self,
        model: RTDetrForObjectDetection,
        input_size: int,
        optim: OptimConfig,
        held_out: LabelledImages,
        dense_weight: float = 1.0,
    ) -> None:
        """Keep model and held-out labels.

        Args:
            model: the network, trained in place.
            input_size: side of its square input, px.
            optim: optimiser and schedule.
            held_out: images of the validation loader, in the same order.
            dense_weight: weight of the dense supervision; 0 leaves it out.
        """
        super().__init__(optim)
        self.model = model
        self.dense = (
            DenseSupervision(model.config.d_model, input_size) if dense_weight > 0 else None
        )
        self._dense_weight = dense_weight
        self._input_size = input_size
        self._held_out = held_out
        self._letterboxes = [
            Letterbox.fit(image.shape[1], image.shape[0], input_size) for image in held_out.images
        ]
        self._found: list[tuple[Boxes, Scores]] = []

    def losses(self, batch: BoxBatch) -> Mapping[str, Tensor]:
        """Return the loss terms of a batch.

        Args:
            batch: images and labels.

        Returns:
            `loss`, the sum over all decoder layers, queries and cells; `vfl`, `bbox`, `giou` of the
            last decoder layer; `dense`, unless it is left out.
        """
        output = forward(self.model, batch.images, batch.labels)
        if self.dense is None:
            return output.losses
        with torch.autocast(batch.images.device.type, enabled=False):
            dense = self.dense(output.maps, batch.labels)
        total = output.losses["loss"] + self._dense_weight * dense
        return {**output.losses, "loss": total, "dense": dense}

    def on_validation_epoch_start(self) -> None:
        """Forget the previous round's boxes."""
        self._found = []

    def validation_step(self, batch: BoxBatch, batch_idx: int) -> None:
        """Detect heads; measured when the round ends.

        Args:
            batch: held-out images.
            batch_idx: unused.
        """
        boxes, scores = decode(forward(self.model, batch.images), self._input_size)
        for found in zip(boxes.float().cpu().numpy(), scores.float().cpu().numpy(), strict=True):
            self._found.append(self._to_image(*found))

    def on_validation_epoch_end(self) -> None:
        """Log mAP50 and mAP50-95 on the held-out labels."""
        values = average_precision(self._held_out.truth, self._found)
        for name in ("ap50", "ap50_95"):
            value = torch.tensor(values.get(name, 0.0))
            self.log(f"val/{name}", value, batch_size=1, sync_dist=True)

    def _to_image(self, boxes: Boxes, scores: Scores) -> tuple[Boxes, Scores]:
        index = len(self._found)
        height, width = self._held_out.images[index].shape[:2]
        in_image = self._letterboxes[index].boxes_to_image(np.ascontiguousarray(boxes))
        return keep_best(clip_boxes(in_image, width, height), scores)
