"""Stage `trained_model`: train the one-pass detector on the filtered dataset.

`trained_model_exact.py` is the same training on the same images with exact ground truth as labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray

import ml
from ml.detector_training.initialisation import build_network
from ml.detector_training.model_card import dataset_licence, model_card
from ml.detector_training.module import HeadDetectorModule
from ml.evaluation.protocol import EvaluationSample, evaluate
from ml.flame.geometry import HeadGeometry
from ml.flame.head_model import HeadModel
from ml.flame.projection import mirror_flame
from ml.imaging.grids import contact_sheet
from ml.imaging.letterbox import Letterbox
from ml.inference.drawing import draw_heads
from ml.inference.loading import WEIGHTS_NAME, save_detector
from ml.model.building import ModelSize
from ml.model.encoders import EncoderName
from ml.model.fusing import count_parameters
from ml.model.losses import HeadLoss, LossConfig
from ml.model.postprocess import PostprocessConfig, postprocess
from ml.records.atomic import remove, write_json, write_text
from ml.records.config import Count, StageConfig
from ml.records.determinism import prepare_torch
from ml.records.exclusions import Exclusions
from ml.records.heads import OPERATING_SCORE, Heads
from ml.records.models import hash_model
from ml.records.report import StageReport
from ml.records.tables import (
    DATASET_HEADS,
    SAMPLES_NAME,
    TRUTH,
    RowGroups,
    write_samples,
)
from ml.records.workspace import Workspace
from ml.training.callbacks import PredictionGrid, write_history
from ml.training.curves import plot_history
from ml.training.fit import HISTORY_NAME, FitConfig, FitResult, finish_work, fit
from ml.training.optim import OptimConfig
from ml.training.processes import leave_to_first, own_folder
from ml.training.tracking import WEIGHTS_TAG, ModelPackage, Tracker, log_data
from ml.training_data.augmentation import AugmentConfig
from ml.training_data.damage import DamageLog
from ml.training_data.datamodule import HeadDataModule, LoaderConfig
from ml.training_data.labels import (
    ExactHeads,
    LabelLimits,
    LabelTable,
    PseudoHeads,
    count_heads,
)
from ml.training_data.samples import HeadSamples, kept_images

STAGE = "trained_model"
HISTORY_COLUMNS = ("epoch", "train/loss", "val/ap50", "val/rotation_deg")
"""Columns that dvc.yaml plots."""


class TrainedModelConfig(StageConfig):
    """Network, data and training of the one-pass detector; the defaults are as published, size L.

    Published are the recipe and the size; conf/paper_l.yaml adds machines and initial weights.
    """

    supervision: ClassVar[Literal["pseudo", "truth"]] = "pseudo"
    """Which labels are the targets; fixed by the stage, as are its dependencies in dvc.yaml."""

    size: ModelSize = "L"
    """Size of the network."""
    encoder: EncoderName | None = None
    """Encoder of the transformers library in place of the size's own; none: the size's own."""
    encoder_folder: Path | None = None
    """Local folder of a pretrained encoder, as transformers' save_pretrained writes it: its
    architecture and weights. Takes the place of `encoder`."""
    initial_weights: Path | None = None
    """Weights to start from. A head detector (the hub's `vgg_heads.pth` or `.trcd`, or the folder
    of a model trained here) is continued whole, in the order of its own outputs; of YOLO-NAS on
    COCO whatever fits by name and shape is taken and the rest reported."""
    source_asset: str | None = None
    """Name of the initial weights in the asset register, as a parent of the model."""
    initial_encoder: Literal["flame_regressor"] | None = None
    """Where the encoder's initial weights come from: the crop regressor, as the paper starts from
    weights trained on COCO; none: random. The regressor must have been given the same encoder."""
    loader: LoaderConfig = LoaderConfig()
    """Batches and input size."""
    augment: AugmentConfig = AugmentConfig(recipe="published", flip=0.0)
    """Random changes of the training images."""
    limits: LabelLimits = LabelLimits()
    """Which heads are neither targets nor background; the side is in network px."""
    loss: LossConfig = LossConfig()
    """Forms and weights of the losses."""
    optim: OptimConfig = OptimConfig(
        lr=5e-5,
        weight_decay=1e-6,
        schedule="published",
        warmup_steps=128,
        final_lr_fraction=0.1,
        ema_decay=0.9997,
        ema_growth="published",
    )
    """Optimiser and schedule."""
    fit: FitConfig = FitConfig(epochs=50)
    """The training loop."""
    postprocess: PostprocessConfig = PostprocessConfig(score_threshold=0.05)
    """Thresholds stored with the model; low, because a benchmark wants the whole curve. Heads are
    shown from `at_operating_score` on."""
    num_grid_images: Count = 12
    """Validation images on each prediction grid."""
    registered_name: str = "vggheads"
    """Name in the model registry; empty registers nothing."""


def run(
    ws: Workspace, config: TrainedModelConfig, tracker: Tracker, stage: str = STAGE
) -> StageReport:
    """Train the detector, write it, and register it.

    Both stages start from the same weights and see the same images in the same order with the
    same random changes; only the labels differ.

    Args:
        ws: the workspace; filtered dataset, images and head model must exist.
        config: network, data and training.
        tracker: receives curves, grids, checkpoint and model.
        stage: the stage whose folder receives the results.

    Returns:
        Counts of images, last metrics, curves and prediction grids.

    Raises:
        FileNotFoundError: an upstream stage has no results.
        ValueError: a split has no images.
        NonFiniteTraining: the training diverged.
    """
    prepare_torch(ws, STAGE)
    folder = ws.stage_dir(stage)
    head_model = HeadModel.load(ws.stage_dir("head_model") / "head_model.npz")
    geometry = HeadGeometry(head_model)
    exclusions = Exclusions(stage)
    labels = read_labels(ws, config, geometry, stage)
    listed = {split: kept_images(ws, split) for split in ("train", "val")}
    train, val = (
        read_samples(split, *images, labels, config.loader.cache_mb, exclusions)
        for split, images in listed.items()
    )
    given = [name for ids, _ in listed.values() for name in ids]
    exclusions.account(given, [*train.sample_ids, *val.sample_ids])
    # The released dataset, if it takes the place of the filtered one.
    dataset = ws.stage_dir("filtered_dataset").name
    log_data(tracker, dataset, {"train": _counts(train), "val": _counts(val)})
    network = build_network(ws, config)
    module = HeadDetectorModule(
        network,
        HeadLoss(config.loss, head_model),
        config.optim,
        config.postprocess,
        HeadMetrics(geometry),
    )
    damage = DamageLog(own_folder(ws.work_dir(stage)) / "damaged.jsonl")
    data = HeadDataModule(
        train,
        val,
        config.loader,
        config.limits,
        config.augment,
        ws.seed,
        STAGE,
        HeadMirror(head_model),
        damage,
    )
    drawing = GridDrawing(data.grid_items(config.num_grid_images), geometry)
    images = folder / "images"
    grids = PredictionGrid(drawing, images, tracker, config.fit.validation_interval)
    result = fit(module, data, ws, stage, config.fit, tracker, [grids])
    save_detector(
        folder,
        network,
        config.loader.image_size,
        config.postprocess,
        head_model.sha256,
        {
            "stage": stage,
            "seed": ws.seed,
            "supervision": config.supervision,
            **config.model_dump(mode="json"),
        },
    )
    tracker.set_tags({WEIGHTS_TAG: hash_model(folder / WEIGHTS_NAME)})
    damaged = damage.exclude(exclusions)
    used = [[n for n in part.sample_ids if n not in damaged] for part in (train, val)]
    counts = exclusions.account(given, [name for part in used for name in part])
    exclusions.write(ws, stage)
    report = _write_report(folder, result, counts, tracker)
    licence = dataset_licence(ws.stage_dir("filtered_dataset") / "CARD.md")
    card = model_card(
        config.size,
        count_parameters(network),
        config.loader.image_size,
        config.supervision,
        licence,
        head_model.sha256,
        result.metrics,
        len(used[1]),
    )
    write_text(folder / "CARD.md", card)
    tags = {"stage": stage, "licence": licence, "head_model": head_model.sha256}
    # In a registered copy of the model, ids would outlive their removal.
    remove(folder / SAMPLES_NAME)
    _register(folder, config, tracker, card, tags)
    write_samples(folder, *used)
    finish_work(ws, stage)
    return report


def write_untrained(ws: Workspace, stage: str) -> StageReport:
    """Leave empty metrics and a note in place of a training that is switched off.

    DVC and the benchmark expect the files; an older model must not be taken for this one's.

    Args:
        ws: the workspace.
        stage: the training's stage.
    """
    leave_to_first()
    folder = ws.stage_dir(stage)
    remove(folder)
    write_json(folder / "metrics.json", {})
    write_history(folder / HISTORY_NAME, pd.DataFrame(columns=HISTORY_COLUMNS))
    Exclusions(stage).write(ws, stage)
    note = f"no; set {stage}.enabled in params.yaml to true and run again"
    return StageReport(num_in=0, num_out=0, num_excluded=0, metadata={"trained": note})


def read_labels(
    ws: Workspace, config: TrainedModelConfig, geometry: HeadGeometry, stage: str = STAGE
) -> LabelTable:
    """Return the configured labels of all images; the parameters are read when needed.

    Args:
        ws: the workspace.
        config: which labels, and which heads to ignore.
        geometry: head model, to bound rotated boxes.
        stage: the stage that trains, whose unfinished work keeps the parameters.
    """
    file = own_folder(ws.work_dir(stage)) / "labels.flame"
    if config.supervision == "truth":
        tables = [ws.table_path("truth", shard) for shard in ws.shards]
        exact = ExactHeads(RowGroups(tables, TRUTH), config.limits)
        return LabelTable(exact, geometry.vertices_px, file)
    table = ws.stage_dir("filtered_dataset") / "heads.parquet"
    return LabelTable(PseudoHeads(RowGroups([table], DATASET_HEADS)), geometry.vertices_px, file)


def read_samples(
    split: str,
    sample_ids: Sequence[str],
    tars: Sequence[Path],
    labels: LabelTable,
    cache_mb: int,
    exclusions: Exclusions,
) -> HeadSamples:
    """Return the images of a split with their labels.

    Args:
        split: train or val.
        sample_ids: ids of its images.
        tars: the tar of each.
        labels: of these and other images.
        cache_mb: memory for decoded images.
        exclusions: receives damaged samples.

    Returns:
        Readable samples, decoded as far as the cache allows.

    Raises:
        ValueError: nothing is left.
    """
    samples = HeadSamples(sample_ids, tars, labels, cache_mb << 20)
    readable = samples.without_damaged(exclusions, beyond_cache=False)
    if not len(readable):
        raise ValueError(
            f"filtered_dataset has no readable image in split {split!r} of the "
            f"{len(sample_ids)} that it keeps; look at the reasons in verdicts.parquet"
        )
    return readable


class HeadMirror:
    """The head model's mirror for augmentation; an object, so that loader processes can have it."""

    def __init__(self, head_model: HeadModel) -> None:
        """Keep the mirror maps alone.

        Args:
            head_model: the head model of the labels.
        """
        self.mirror_shape: object = head_model.mirror_shape
        self.mirror_expression: object = head_model.mirror_expression

    def __call__(self, flame: NDArray[np.floating]) -> NDArray[np.floating]:
        """Mirror heads about x = 0.

        Args:
            flame: (N, 413) image frame, px.

        Returns:
            (N, 413) mirrored.
        """
        mirrored: NDArray[np.floating] = mirror_flame(torch.from_numpy(flame), 0.0, self).numpy()
        return mirrored


class HeadMetrics:
    """Validation metrics by the benchmark's own protocol, on network-sized images."""

    def __init__(self, geometry: HeadGeometry) -> None:
        """Remember the head model.

        Args:
            geometry: turns parameters into vertices and rotations.
        """
        self._geometry = geometry

    def __call__(
        self,
        predicted: Sequence[Heads],
        labelled: Sequence[Heads],
        ignored: Sequence[NDArray[np.bool_]],
    ) -> Mapping[str, float]:
        """Match and measure.

        Args:
            predicted: heads of each image.
            labelled: labelled heads of each image.
            ignored: which of these are not asked for.

        Returns:
            `ap50`, `nme_bbox` (percent), `rotation_deg`, `recall`, `precision`.
        """
        blank = np.zeros((1, 1, 3), np.uint8)
        samples = [
            EvaluationSample(str(index), blank, heads, ignore, _no_attributes(len(heads)))
            for index, (heads, ignore) in enumerate(zip(labelled, ignored, strict=True))
        ]
        metrics = evaluate(predicted, samples, self._geometry).metrics()
        names = ("ap50", "nme_bbox", "rotation_deg", "recall", "precision")
        return {name: metrics[name] for name in names}


def _no_attributes(count: int) -> pd.DataFrame:
    return pd.DataFrame(index=range(count))


class GridDrawing:
    """Draws the detector's heads in a few validation images."""

    def __init__(self, items: Sequence[NDArray[np.uint8]], geometry: HeadGeometry) -> None:
        """Keep the images.

        Args:
            items: (S, S, 3) uint8 RGB images, already letterboxed.
            geometry: the head model's geometry.
        """
        self._items = items
        self._geometry = geometry

    def __call__(self, module: LightningModule) -> NDArray[np.uint8]:
        """Predict and draw.

        Args:
            module: a `HeadDetectorModule` in evaluation mode.

        Returns:
            Contact sheet, RGB.
        """
        assert isinstance(module, HeadDetectorModule)
        pixels = torch.from_numpy(np.stack(self._items).transpose(0, 3, 1, 2).copy())
        outputs = module.model(pixels.to(module.device))
        shown = PostprocessConfig(score_threshold=OPERATING_SCORE)
        heads = postprocess(outputs, [Letterbox()] * len(self._items), shown)
        drawn = [
            draw_heads(image, of_image, self._geometry, ("mesh", "box"))
            for image, of_image in zip(self._items, heads, strict=True)
        ]
        return contact_sheet(drawn, 4, 256)


def _counts(samples: HeadSamples) -> dict[str, int]:
    heads, ignored = count_heads(samples.labels, samples.sample_ids)
    return {"images": len(samples), "heads": heads, "ignored": ignored}


def _write_report(
    folder: Path, result: FitResult, counts: tuple[int, int, int], tracker: Tracker
) -> StageReport:
    """Return metrics, curves and the stage's report."""
    write_history(folder / HISTORY_NAME, result.history)
    write_json(folder / "metrics.json", result.metrics)
    curves = folder / "images" / "curves.png"
    plot_history(result.history, curves)
    tracker.log_image(curves, "curves")
    # Learning rates at the end of a schedule carry no information, and would come first.
    final = {k: v for k, v in result.metrics.items() if not k.startswith("lr")}
    tracker.log_metrics({f"final/{name}": value for name, value in final.items()})
    grids = sorted((folder / "images").glob("epoch-*.jpg"))
    images = {"predictions": grids[-1]} if grids else {}
    shown = {k: round(v, 4) for k, v in result.metrics.items() if k.startswith("val/")}
    return StageReport(
        *counts,
        metadata=dict(shown),
        timings={"train_seconds": round(result.seconds, 1)},
        tables={"history": result.history},
        images={**images, "curves": curves},
    )


def _register(
    folder: Path,
    config: TrainedModelConfig,
    tracker: Tracker,
    card: str,
    tags: Mapping[str, str],
) -> None:
    """Register the written detector, with its card and everything needed to serve it."""
    if not config.registered_name or not tracker.active:
        return
    from ml.inference import pyfunc_model

    tracker.log_model(
        ModelPackage(
            name=config.registered_name,
            python_file=Path(pyfunc_model.__file__),
            artifacts={pyfunc_model.ARTIFACT: folder},
            signature=pyfunc_model.signature(config.postprocess),
            code_paths=[Path(ml.__file__).parent],
            # An image of the dataset would outlive its removal.
            input_example=pyfunc_model.input_example(config.loader.image_size),
            pip_requirements=[
                "torch",
                "numpy",
                "pandas",
                "opencv-python-headless",
                "pillow",
                "safetensors",
                "pydantic",
                "pyyaml",
                "tqdm",
            ],
            tags={**tags, "supervision": config.supervision, "size": config.size},
            description=card,
            summary="Finds every head of an image: box, score and the 413 parameters of its FLAME "
            "mesh. The newest version is the candidate; the job model_promotion_job makes one the "
            "champion. Each version's description is its model card.",
        )
    )
