"""The detector as an MLflow model from code: encoded images in, a table of heads out.

MLflow runs this file when it logs and when it loads the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

from ml.imaging.io import UnreadableImage, decode_image, encode_png
from ml.inference.loading import load_detector
from ml.model.postprocess import PostprocessConfig, at_operating_score
from ml.records.heads import Heads

ARTIFACT = "detector"
IMAGE = "image"
"""The column of encoded images; in JSON, base64."""
THRESHOLD = "score_threshold"


def heads_table(heads: Sequence[Heads]) -> pd.DataFrame:
    """Return heads of a batch as rows.

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


def signature(thresholds: PostprocessConfig) -> ModelSignature:
    """Return input and output of the model.

    Args:
        thresholds: those of the detector.

    Returns:
        A column of encoded images in, JPEG, PNG or another form that `decode_image` reads; the
        columns of `heads_table` out; the least score as a parameter, with the default that heads
        are shown from everywhere.
    """
    inputs = Schema([ColSpec(DataType.binary, IMAGE)])
    outputs = Schema(
        [
            ColSpec(DataType.long, "image"),
            ColSpec(DataType.double, "score"),
            ColSpec(Array(DataType.double), "box_xyxy"),
            ColSpec(Array(DataType.double), "flame"),
        ]
    )
    default = at_operating_score(thresholds).score_threshold
    params = ParamSchema([ParamSpec(THRESHOLD, DataType.double, default)])
    return ModelSignature(inputs=inputs, outputs=outputs, params=params)


def input_example(side: int) -> pd.DataFrame:
    """Return an input example without a real image: it is stored with every model version.

    Args:
        side: of the black image, px.
    """
    return pd.DataFrame({IMAGE: [encode_png(np.zeros((side, side, 3), np.uint8))]})


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
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Find heads.

        Args:
            context: unused.
            model_input: column `image`: encoded images; their EXIF orientation is followed.
            params: `score_threshold`: the least score.

        Returns:
            The table of `heads_table`.

        Raises:
            MlflowException: an image cannot be read, or the threshold is not possible; the message
                names which of the images. Of any other error, a server answers with a stack trace.
        """
        shown = at_operating_score(self._predictor.postprocessing)
        threshold = float((params or {}).get(THRESHOLD, shown.score_threshold))
        if not 0 <= threshold <= 1:
            reason = f"{THRESHOLD}: expected 0 to 1, got {threshold}"
            raise MlflowException.invalid_parameter_value(reason)
        images = [_decoded(data, index) for index, data in enumerate(model_input[IMAGE])]
        kept = shown.model_copy(update={THRESHOLD: threshold})
        return heads_table(self._predictor.predict(images, postprocessing=kept))


def _decoded(data: bytes, index: int) -> np.ndarray:
    try:
        return decode_image(data)
    except UnreadableImage as error:
        reason = f"image {index}: {error}; expected a JPEG, PNG or such file"
        raise MlflowException.invalid_parameter_value(reason) from error


mlflow.models.set_model(HeadDetectorPyfunc())
