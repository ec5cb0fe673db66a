"""The one-pass detector as Lightning module: losses of a batch, validation on whole images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, distributed

from ml.imaging.letterbox import Letterbox
from ml.model.detector import HeadDetectorNetwork
from ml.model.losses import HeadLoss
from ml.model.postprocess import PostprocessConfig, postprocess
from ml.model.targets import HeadTargets
from ml.records.heads import Heads
from ml.training.base import TrainingModule
from ml.training.optim import OptimConfig
from ml.training_data.datamodule import HeadBatch

T = TypeVar("T")

Evaluate = Callable[
    [Sequence[Heads], Sequence[Heads], Sequence[NDArray[np.bool_]]], Mapping[str, float]
]
"""Predicted heads, labelled heads and which of these to ignore, each by image -> metrics."""


class HeadDetectorModule(TrainingModule):
    """Trains a detector; validates on its final heads of each image."""

    def __init__(
        self,
        model: HeadDetectorNetwork,
        loss: HeadLoss,
        optim: OptimConfig,
        postprocessing: PostprocessConfig,
        evaluate: Evaluate | None = None,
    ) -> None:
        """Remember the parts.

        Args:
            model: the network.
            loss: losses of its outputs.
            optim: optimiser and schedule.
            postprocessing: thresholds of the validation's predictions.
            evaluate: metrics of validation heads; None logs the losses alone.
        """
        super().__init__(optim)
        self.model = model
        self.loss = loss
        self._postprocessing = postprocessing
        self._evaluate = evaluate
        self._predicted: list[Heads] = []
        self._labelled: list[Heads] = []
        self._ignored: list[NDArray[np.bool_]] = []

    def losses(self, batch: HeadBatch) -> Mapping[str, Tensor]:
        """Return the loss terms of a batch.

        Args:
            batch: images and their heads.

        Returns:
            `loss` and its unweighted terms.
        """
        outputs = self.model.training_outputs(batch.images)
        terms: dict[str, Tensor] = self.loss(outputs, batch.targets)
        return terms

    def on_validation_epoch_start(self) -> None:
        """Forget the last validation's heads."""
        self._predicted, self._labelled, self._ignored = [], [], []

    def validation_step(self, batch: HeadBatch, batch_idx: int) -> None:
        """Log the losses and keep the heads for the epoch's metrics.

        Args:
            batch: images and their heads.
            batch_idx: unused.
        """
        outputs = self.model(batch.images)
        size = len(batch.sample_ids)
        for name, value in self.loss(outputs, batch.targets).items():
            if name != "positives":
                self.log(f"val/{name}", value, batch_size=size, sync_dist=True)
        if self._evaluate is not None:
            self._predicted += postprocess(outputs, [Letterbox()] * size, self._postprocessing)
            for index in range(size):
                heads, ignore = _heads_of_image(batch.targets, index)
                self._labelled.append(heads)
                self._ignored.append(ignore)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation's heads, those of all processes together."""
        if self._evaluate is None:
            return
        heads = (self._predicted, self._labelled, self._ignored)
        predicted, labelled, ignored = (_of_all_processes(part) for part in heads)
        if not predicted:
            return
        metrics = self._evaluate(predicted, labelled, ignored)
        finite = {f"val/{k}": float(v) for k, v in metrics.items() if np.isfinite(v)}
        self.log_dict(finite, sync_dist=True, batch_size=len(predicted))


def _of_all_processes(own: list[T]) -> list[T]:
    """Gather the values of all processes of a training, in the order of the images."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return own
    parts: list[list[T]] = [[] for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(parts, own)
    longest = max(len(part) for part in parts)
    return [part[index] for index in range(longest) for part in parts if index < len(part)]


def _heads_of_image(targets: HeadTargets, index: int) -> tuple[Heads, NDArray[np.bool_]]:
    """Return one image's labelled heads.

    Those without parameters cannot be measured and are ignored.
    """
    rows = targets.image_index == index
    boxes, flame = targets.boxes_xyxy[rows], targets.flame[rows]
    heads = Heads(boxes.cpu().numpy(), np.ones(len(boxes), np.float32), flame.cpu().numpy())
    ignore = targets.ignore[rows] | ~targets.flame_valid[rows]
    return heads, ignore.cpu().numpy()
