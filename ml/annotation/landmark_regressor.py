"""The second teacher: landmarks of a predictor, and the head model fitted to them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ml.annotation.estimates import cut_crops
from ml.annotation.landmark_fit import LandmarkFitConfig, SurfacePoints, fit_landmarks
from ml.annotation.landmarks import LandmarkPredictor, points_on_head
from ml.flame.head_model import HeadModel
from ml.flame.landmark_files import LandmarkEmbedding


class LandmarkRegressor:
    """Fits the head model to a predictor's landmarks, in the shape of `FlameRegressor`.

    Attributes:
        name: entry in the heads table; contains the predictor's name.
        sha256: hash of the predictor's weights.
        crop_size: side of its crops, px.
        box_margin: fraction of the head box that its crops add on each side.
    """

    def __init__(
        self,
        predictor: LandmarkPredictor,
        head_model: HeadModel,
        config: LandmarkFitConfig,
        embedding: LandmarkEmbedding | None = None,
        device: str = "cpu",
    ) -> None:
        """Find the predictor's points on the head.

        Args:
            predictor: finds landmarks.
            head_model: the fitted head model.
            config: settings of the fit.
            embedding: where MediaPipe's points lie; not needed for the 68.
            device: where the fit computes.

        Raises:
            LandmarkError: no embedding maps the predictor's points to the head.
        """
        self._predictor, self._config = predictor, config
        points, self._chosen = points_on_head(head_model, predictor.num_points, embedding)
        self._surface = SurfacePoints(head_model, points).to(device)
        self.name = f"landmark_fit({predictor.name})"
        self.sha256 = predictor.sha256
        self.crop_size, self.box_margin = predictor.crop_size, predictor.box_margin

    def cut(
        self, image_rgb: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
        """Cut the crops that the predictor takes.

        Args:
            image_rgb: (H, W, 3) uint8.
            boxes_xyxy: (N, 4) head boxes, image px.

        Returns:
            (N, S, S, 3) uint8 RGB, and (N, 3) left, top and side of each crop in image px.
        """
        return cut_crops(self._predictor, image_rgb, boxes_xyxy)

    def predict(self, crops: Tensor) -> Tensor:
        """Estimate the head in the middle of each crop.

        Args:
            crops: (N, 3, crop_size, crop_size) uint8 RGB.

        Returns:
            (N, 413) float32 FLAME parameters, crop frame, px; NaN where the fit is bad.
        """
        return self.predict_with_reasons(crops)[0]

    def predict_with_reasons(self, crops: Tensor) -> tuple[Tensor, list[str]]:
        """Estimate the head in the middle of each crop, with reasons where it fails.

        Args:
            crops: (N, 3, crop_size, crop_size) uint8 RGB.

        Returns:
            (N, 413) float32 FLAME parameters, crop frame, px; NaN where the fit is bad. N texts,
            empty where it is good.
        """
        landmarks = self._predictor.find(crops)[:, torch.from_numpy(self._chosen)]
        fit = fit_landmarks(landmarks, self._surface, self._config)
        return torch.from_numpy(fit.flame), fit.problems
