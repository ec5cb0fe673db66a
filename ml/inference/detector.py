"""The detector for people: one line from a photo to meshes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from ml.flame.head_model import HeadModel
from ml.inference.flip import FlipAveraged
from ml.inference.heads import HeadShapes
from ml.inference.loading import load_detector
from ml.inference.results import PredictionResult
from ml.inference.runtimes import RuntimeName, UnusableModel
from ml.inference.sources import (
    Source,
    count_images,
    expand,
    is_live,
    is_single,
    is_video,
    read_images,
)
from ml.model.postprocess import PostprocessConfig, at_operating_score
from ml.records.exclusions import Exclusions
from ml.records.models import choose_device
from ml.records.progress import progress

HEAD_MODEL_NAME = "head_model.npz"
"""The head model next to a checkpoint."""


class HeadDetector:
    """Finds every head in images: box, score, 413 parameters, mesh.

    ```python
    detector = HeadDetector("data/trained_model")
    result = detector("photo.jpg")
    result.save_meshes("meshes")
    ```
    """

    def __init__(
        self,
        checkpoint: Path | str,
        head_model: HeadModel | Path | str | None = None,
        device: str = "auto",
        runtime: RuntimeName = "torch",
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        max_heads: int | None = None,
        batch_size: int = 8,
        flip_test: bool = False,
    ) -> None:
        """Load the detector; nothing in its files is executed.

        Args:
            checkpoint: a folder of a trained model; an ONNX or TorchScript file of
                `vggheads export`; the official TorchScript file; a super-gradients checkpoint.
            head_model: the head model of the parameters or its npz file. Left out,
                `head_model.npz` next to the checkpoint is taken, or that of a project's folder
                `head_model`; without any there are boxes and parameters, but no vertices.
            device: auto, cpu, cuda or cuda:N.
            runtime: torch or onnxruntime.
            score_threshold: heads below are dropped; see `at_operating_score` if left out.
            iou_threshold: of heads that overlap more the best stays; the model's own value if left
                out.
            max_heads: at most this many per image; likewise.
            batch_size: images at once.
            flip_test: look at the mirror image of each image too and average: a little more exact,
                in twice the time.

        Raises:
            UnusableModel: a file is missing, damaged or of another kind, or the head model is not
                the one that the detector was trained with.
            ValueError: device, runtime or a threshold is not possible, or there is no head model
                to mirror heads with.
        """
        checkpoint = Path(checkpoint)
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self._predictor = load_detector(checkpoint, choose_device(device), None, runtime)
        self.postprocessing = _with(
            at_operating_score(self._predictor.postprocessing),
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_heads=max_heads,
        )
        self.batch_size = batch_size
        self.description = self._predictor.description
        model = _head_model(head_model, checkpoint, self.description.get("head_model_sha256"))
        self._shapes = None if model is None else HeadShapes(model)
        self._predict = self._predictor.predict
        if flip_test:
            if model is None:
                raise ValueError(
                    f"flip_test: {checkpoint} has no head model next to it, which says what a "
                    "mirrored head's parameters are; pass head_model"
                )
            self._predict = FlipAveraged(self._predictor, model).predict

    @property
    def head_model(self) -> HeadModel | None:
        """The head model, None if there is none."""
        return None if self._shapes is None else self._shapes.head_model

    def __call__(
        self, source: Source, score_threshold: float | None = None
    ) -> PredictionResult | list[PredictionResult]:
        """Find heads.

        Args:
            source: an image: (H, W, 3) RGB, (H, W, 4) or (H, W) array, PIL image or path; or
                several: a list of them, the path of a folder, the path of a video. Cameras ("0")
                and streams ("rtsp://...") have no end; `stream` is for them.
            score_threshold: for this call; that of the detector if left out.

        Returns:
            The result of one image; a list of results of several, a folder or a video; an empty
            one of an empty list.

        Raises:
            UnreadableImage: an image cannot be read; the message names it.
            ValueError: a folder holds no images.
        """
        results = list(self.stream(source, None, score_threshold))
        return results[0] if is_single(source) else results

    def stream(
        self,
        source: Source,
        exclusions: Exclusions | None = None,
        score_threshold: float | None = None,
    ) -> Iterator[PredictionResult]:
        """Find heads image by image, keeping no more than a batch in memory, with a progress bar.

        Args:
            source: as for a call.
            exclusions: receives images that cannot be read; without it they are an error.
            score_threshold: for this call; that of the detector if left out.

        Yields:
            Results in order.

        Raises:
            UnreadableImage: an image cannot be read and there are no exclusions.
            ValueError: a folder holds no images.
        """
        thresholds = _with(self.postprocessing, score_threshold=score_threshold)
        entries = expand(source, exclusions)
        images = read_images(entries, exclusions)
        if len(entries) > 1 or any(is_video(entry) or is_live(entry) for entry in entries):
            images = progress(images, "heads", count_images(entries))
        # A live frame is processed on arrival and does not wait for a batch.
        at_once = 1 if any(map(is_live, entries)) else self.batch_size
        while batch := list(islice(images, at_once)):
            found = self._predict([image.image_rgb for image in batch], at_once, thresholds)
            for image, heads in zip(batch, found, strict=True):
                yield PredictionResult(
                    image.image_rgb, heads, self._shapes, image.name, image.time_s
                )


def _with(config: PostprocessConfig, **changes: float | None) -> PostprocessConfig:
    """Return thresholds with some of them replaced, checked."""
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        return PostprocessConfig.model_validate(config.model_dump() | given)
    except ValidationError as error:
        problems = "; ".join(f"{e['loc'][0]}: {e['msg']}, got {e['input']}" for e in error.errors())
        raise ValueError(f"HeadDetector: {problems}") from error


def _head_model(
    given: HeadModel | Path | str | None, checkpoint: Path, wanted_sha256: str | None
) -> HeadModel | None:
    """Return the head model that a detector's parameters belong to."""
    if isinstance(given, HeadModel):
        model, where = given, "the given head model"
    else:
        beside = checkpoint if checkpoint.is_dir() else checkpoint.parent
        places = [
            beside / HEAD_MODEL_NAME,
            beside.parent / "head_model" / HEAD_MODEL_NAME,
        ]
        path = Path(given) if given else next((p for p in places if p.is_file()), None)
        if path is None:
            return None
        try:
            model, where = HeadModel.load(path), str(path)
        except (ValueError, FileNotFoundError) as error:
            raise UnusableModel(str(error)) from error
    if wanted_sha256 and model.sha256 != wanted_sha256:
        raise UnusableModel(
            f"{checkpoint}: was trained with the head model {wanted_sha256[:12]}, and {where} is "
            f"{model.sha256[:12]}: its vertices would be wrong; pass the right one as head_model"
        )
    return model
