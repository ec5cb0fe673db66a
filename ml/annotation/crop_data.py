"""The rendered crops as training data, augmented differently every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ml.annotation.augment import (
    NO_AUGMENTATION,
    CropAugmentConfig,
    cut_crop,
    degraded,
    random_crop,
    truncated,
)
from ml.annotation.regressor import RegressorArchitecture
from ml.flame.frames import square_frames
from ml.flame.head_model import HeadModel
from ml.flame.params import NUM_PARAMETERS
from ml.flame.projection import mirror_flame
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng
from ml.records.tables import CROPS, read_table
from ml.records.workspace import Workspace
from ml.training.datamodule import EpochDataModule
from ml.training.determinism import SampleKey
from ml.training_data.samples import HeadSamples, ShardImages

STAGE = "flame_regressor"


@dataclass(frozen=True)
class CropExamples:
    """Rendered heads with some surroundings.

    Attributes:
        crop_ids: N ids.
        images_rgb: N images (H, W, 3) uint8; need not be in memory.
        boxes_xyxy: (N, 4) float32 visible head, image px.
        flame: (N, 413) float32 parameters, image frame.
    """

    crop_ids: list[str]
    images_rgb: Sequence[NDArray[np.uint8]]
    boxes_xyxy: NDArray[np.float32]
    flame: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.crop_ids)


@dataclass(frozen=True)
class CropItem:
    """One training crop before it is batched."""

    crop_id: str
    crop_rgb: NDArray[np.uint8]
    box_size: float
    flame: NDArray[np.float32]


@dataclass
class CropBatch:
    """A batch of crops.

    Attributes:
        sample_ids: B crop ids.
        crops: (B, 3, S, S) uint8 RGB.
        flame: (B, 413) parameters, crop frame, px.
        box_size: (B,) square root of the box's area, crop px.
    """

    sample_ids: list[str]
    crops: Tensor
    flame: Tensor
    box_size: Tensor


def load_crops(
    ws: Workspace, split: str, exclusions: Exclusions, cache_mb: int = 4096
) -> CropExamples:
    """Read the crops of a split; each is decoded once, to find damage.

    Args:
        ws: the workspace.
        split: train or val.
        exclusions: receives the crops that cannot be read.
        cache_mb: memory for decoded crops; beyond it they are decoded again each time.

    Returns:
        The crops, in order of shard and row.

    Raises:
        FileNotFoundError: there are no crop shards.
    """
    rows: dict[str, tuple[Path, NDArray[np.float32], NDArray[np.float32]]] = {}
    for path in _tables(ws):
        frame = read_table(path, CROPS)
        frame = frame[frame["split"] == split]
        for crop_id, box, parameters in zip(
            frame["crop_id"], frame["bbox_xywh"], frame["flame"], strict=True
        ):
            corners = np.concatenate([box[:2], box[:2] + box[2:]])
            rows[crop_id] = path.with_suffix(".tar"), corners, parameters
    shards = [shard for shard, _, _ in rows.values()]
    samples = HeadSamples(list(rows), shards, {}, cache_mb << 20).without_damaged(exclusions)
    readable = [rows[crop_id] for crop_id in samples.sample_ids]
    return CropExamples(
        list(samples.sample_ids),
        ShardImages(samples),
        np.array([box for _, box, _ in readable], np.float32).reshape(-1, 4),
        np.array([flame for _, _, flame in readable], np.float32).reshape(-1, NUM_PARAMETERS),
    )


def crop_ids(ws: Workspace) -> list[str]:
    """Return the ids of all crops of both splits, in order of shard and row.

    Args:
        ws: the workspace.

    Raises:
        FileNotFoundError: there are no crop shards.
    """
    return [str(item) for path in _tables(ws) for item in read_table(path, CROPS)["crop_id"]]


def _tables(ws: Workspace) -> list[Path]:
    folder = ws.stage_dir("crops")
    tables = sorted(folder.glob("crops-[0-9]*[0-9].parquet"))
    if not tables:
        raise FileNotFoundError(f"{folder}: no crop shards; run the stage crops")
    return tables


class CropDataset(Dataset[CropItem]):
    """Crops of one split; item and epoch seed a crop's augmentation."""

    def __init__(
        self,
        examples: CropExamples,
        architecture: RegressorArchitecture,
        augment: CropAugmentConfig,
        head_model: HeadModel,
        seed: int,
    ) -> None:
        """Keep the images.

        Args:
            examples: the rendered heads.
            architecture: size and margin of the crops.
            augment: strength of the random changes.
            head_model: says what a mirrored head's parameters are.
            seed: the run's seed.
        """
        self._examples = examples
        self._architecture = architecture
        self._augment = augment
        self._seed = seed
        # Once for all crops: one by one they take as long as cutting the crops out.
        self._frames = square_frames(examples.boxes_xyxy, architecture.box_margin)
        self._mirrored = mirror_flame(torch.as_tensor(examples.flame), 0.0, head_model).numpy()

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, key: SampleKey) -> CropItem:
        crop_id = self._examples.crop_ids[key.index]
        image = self._examples.images_rgb[key.index]
        whole = self._examples.boxes_xyxy[key.index]
        rng = sample_rng(self._seed, STAGE, f"{crop_id}/epoch-{key.epoch}")
        size, margin = self._architecture.crop_size, self._architecture.box_margin
        image, box = truncated(image, whole, self._augment, rng)
        frame = self._frames[key.index] if box is whole else square_frames(box[None], margin)[0]
        width, height = box[2:] - box[:2]
        similarity = random_crop(
            frame, float(max(width, height)), image.shape[1], size, self._augment, rng
        )
        crop = degraded(cut_crop(image, similarity, size), self._augment, rng)
        flame = self._examples.flame[key.index]
        return CropItem(
            crop_id=crop_id,
            crop_rgb=crop,
            box_size=float(np.sqrt(width * height) * similarity.zoom),
            flame=similarity.flame(flame[None], lambda _: self._mirrored[key.index, None])[0],
        )


class CropDataModule(EpochDataModule):
    """Batches of augmented training crops and of plain held-out crops."""

    def __init__(
        self,
        train: CropExamples,
        val: CropExamples,
        architecture: RegressorArchitecture,
        augment: CropAugmentConfig,
        head_model: HeadModel,
        batch_size: int,
        seed: int,
    ) -> None:
        """Keep the images.

        Args:
            train: crops to learn from.
            val: held-out crops.
            architecture: size and margin of the crops.
            augment: strength of the random changes.
            head_model: says what a mirrored head's parameters are.
            batch_size: crops in a batch.
            seed: the run's seed.
        """
        super().__init__(seed, STAGE, batch_size)
        self._train, self._val = train, val
        self._architecture, self._augment = architecture, augment
        self._head_model = head_model

    def sample_ids(self, training: bool) -> Sequence[str]:
        """Return the ids of one split."""
        return (self._train if training else self._val).crop_ids

    def dataset(self, training: bool) -> CropDataset:
        """Return one split; held-out crops are cut as the annotation stage cuts them."""
        examples, augment = (
            (self._train, self._augment) if training else (self._val, NO_AUGMENTATION)
        )
        return CropDataset(examples, self._architecture, augment, self._head_model, self.seed)

    @staticmethod
    def collate(items: Sequence[CropItem]) -> CropBatch:
        """Batch crops.

        Args:
            items: crops with their parameters.

        Returns:
            The batch.
        """
        crops = torch.from_numpy(np.stack([item.crop_rgb for item in items])).permute(0, 3, 1, 2)
        return CropBatch(
            sample_ids=[item.crop_id for item in items],
            crops=crops,
            flame=torch.from_numpy(np.stack([item.flame for item in items])),
            box_size=torch.tensor([item.box_size for item in items]),
        )
