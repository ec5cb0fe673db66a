"""The detector as an MLflow model from code: a batch of images in, a table of heads out.

MLflow runs this file when it logs and when it loads the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array

from ml.inference.loading import load_detector
from ml.records.heads import Heads

ARTIFACT = "detector"


def heads_table(heads: Sequence[Heads]) -> pd.DataFrame:
    """Heads of a batch as rows.

    Args:
        heads: heads of each image, image px.

    Returns:
        Columns `image` (position in the batch), `score`, `box_xyxy` (4), `flame` (413).
    """
    rows = [
        {
            "image": index,
            "score": float(of_image.scores[i]),
            "box_xyxy": of_image.boxes_xyxy[i].tolist(),
            "flame": of_image.flame[i].tolist(),
        }
        for index, of_image in enumerate(heads)
        for i in range(len(of_image))
    ]
    frame = pd.DataFrame(rows, columns=["image", "score", "box_xyxy", "flame"])
    return frame.astype({"image": np.int64, "score": np.float64})


def signature() -> ModelSignature:
    """Input and output of the model.

    Returns:
        (B, H, W, 3) uint8 RGB in; the columns of `heads_table` out.
    """
    inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    outputs = Schema(
        [
            ColSpec(DataType.long, "image"),
            ColSpec(DataType.double, "score"),
            ColSpec(Array(DataType.double), "box_xyxy"),
            ColSpec(Array(DataType.double), "flame"),
        ]
    )
    return ModelSignature(inputs=inputs, outputs=outputs)


class HeadDetectorPyfunc(PythonModel):
    """Loads a detector folder and predicts."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the detector.

        Args:
            context: holds the folder under the key `detector`.
        """
        self._predictor = load_detector(Path(context.artifacts[ARTIFACT]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Find heads.

        Args:
            context: unused.
            model_input: (B, H, W, 3) uint8 RGB.
            params: unused.

        Returns:
            The table of `heads_table`.
        """
        return heads_table(self._predictor.predict(list(np.asarray(model_input, np.uint8))))


mlflow.models.set_model(HeadDetectorPyfunc())
