"""Training data of a PNCC ControlNet: pairs of an image and the PNCC map of its heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ml.flame.head_model import HeadModel
from ml.flame.pncc import pncc_map
from ml.generation.renderer.people import head_kit
from ml.imaging.io import UnreadableImage, decode_image
from ml.records import reasons
from ml.records.determinism import one_thread
from ml.records.exclusions import Exclusions
from ml.records.ids import sample_rng
from ml.records.shards import DamagedSample, ShardReader
from ml.records.tables import (
    CAPTIONS,
    DATASET_HEADS,
    IMAGES,
    TRUTH,
    read_stage,
    read_table,
    stack,
)
from ml.records.workspace import Workspace
from ml.training.datamodule import EpochDataModule
from ml.training.determinism import SampleKey

HeadSource = Literal["truth", "annotations"]


@dataclass(frozen=True)
class Pair:
    """One training example.

    Attributes:
        sample_id: the image's id.
        shard: the tar that holds it.
        prompt: the prompt it was generated from.
        flames: (N, 413) float32 of its heads, image frame, px.
    """

    sample_id: str
    shard: Path
    prompt: str
    flames: np.ndarray


@dataclass(frozen=True)
class PairItem:
    """A pair at the training's size.

    Attributes:
        sample_id: the image's id.
        prompt: its prompt, perhaps emptied.
        image: (H, W, 3) uint8 RGB.
        condition: (H, W, 3) uint8 RGB PNCC map.
        noise_seed: seeds noise and timestep.
    """

    sample_id: str
    prompt: str
    image: np.ndarray
    condition: np.ndarray
    noise_seed: int


@dataclass
class PairBatch:
    """Pairs stacked; Lightning moves it to the device, so it is not frozen.

    Attributes:
        sample_ids: ids.
        prompts: one per pair.
        images: (B, 3, H, W) float32 in [-1, 1].
        conditions: (B, 3, H, W) float32 in [0, 1].
        noise_seeds: one per pair.
    """

    sample_ids: list[str]
    prompts: list[str]
    images: Tensor
    conditions: Tensor
    noise_seeds: list[int]


def read_pairs(ws: Workspace, split: str, heads: HeadSource, exclusions: Exclusions) -> list[Pair]:
    """Return the images of a split that show heads with parameters.

    Args:
        ws: the workspace; reads images, captions, and truth or the filtered dataset's heads.
        split: train, val or test.
        heads: ground truth, or the pseudo-labels of the images that the filters kept.
        exclusions: receives the images without such a head.

    Returns:
        The pairs, in the order of the shards.

    Raises:
        FileNotFoundError: a stage has not been made.
    """
    images = read_stage(ws, "images", IMAGES)
    prompts = read_stage(ws, "captions", CAPTIONS).set_index("sample_id")["prompt"]
    if heads == "truth":
        rows = read_stage(ws, "truth", TRUTH)
    else:
        rows = read_table(ws.stage_dir("filtered_dataset") / "heads.parquet", DATASET_HEADS)
        rows = rows[rows["flame_status"] == "ok"]
    flames = {str(key): stack(own["flame"]) for key, own in rows.groupby("sample_id", sort=False)}
    pairs = []
    for image in images[images["split"] == split].to_dict("records"):
        sample_id = str(image["sample_id"])
        if sample_id not in flames:
            exclusions.add(sample_id, reasons.NO_HEAD, f"no head with parameters among the {heads}")
            continue
        shard = ws.stage_dir("images") / f"{image['shard']}.tar"
        pairs.append(Pair(sample_id, shard, str(prompts[sample_id]), flames[sample_id]))
    return pairs


class PairDataset(Dataset[PairItem]):
    """Reads, draws and resizes pairs."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        head_model: HeadModel,
        size: int,
        prompt_dropout: float,
        seed: int,
        stage: str,
        fixed_noise: bool,
    ) -> None:
        """Store the examples and settings.

        Args:
            pairs: the examples.
            head_model: the heads' model.
            size: side of the square that is cut from the middle, px.
            prompt_dropout: fraction of prompts that are emptied, so that the model also learns to
                follow the map alone.
            seed: the run's seed.
            stage: name of the training.
            fixed_noise: draw the same noise and timestep in every epoch.
        """
        self._pairs, self._head_model, self._size = list(pairs), head_model, size
        self._prompt_dropout, self._seed, self._stage = prompt_dropout, seed, stage
        self._fixed_noise = fixed_noise

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def sample_ids(self) -> list[str]:
        """Ids in order."""
        return [pair.sample_id for pair in self._pairs]

    def __getitem__(self, key: SampleKey) -> PairItem:
        pair = self._pairs[key.index]
        epoch = 0 if self._fixed_noise else key.epoch
        rng = sample_rng(self._seed, self._stage, f"{pair.sample_id}/{epoch}")
        image, condition = self.draw(pair)
        return PairItem(
            sample_id=pair.sample_id,
            prompt="" if rng.random() < self._prompt_dropout else pair.prompt,
            image=image,
            condition=condition,
            noise_seed=int(rng.integers(2**63)),
        )

    def draw(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """Return a pair at the training's size.

        Args:
            pair: the example.

        Returns:
            (size, size, 3) uint8 RGB image and PNCC map.

        Raises:
            RuntimeError: the image cannot be read; names it.
        """
        try:
            image = decode_image(_reader(pair.shard).read(pair.sample_id))
        except (DamagedSample, UnreadableImage) as error:
            raise RuntimeError(
                f"{self._stage}: {pair.sample_id} cannot be read: {error}; rerun the stage images"
            ) from error
        kit = head_kit(self._head_model)
        with one_thread(), torch.inference_mode():
            vertices = kit.layer.vertices_in_image(torch.from_numpy(pair.flames)).numpy()
        condition = pncc_map(list(vertices), self._head_model, *image.shape[:2])
        return _middle(image, self._size), _middle(condition, self._size)


class PairDataModule(EpochDataModule):
    """Batches of pairs; validation always draws the same noise and timesteps."""

    def __init__(
        self, train: PairDataset, val: PairDataset, batch_size: int, seed: int, stage: str
    ) -> None:
        """Keep both sets.

        Args:
            train: examples to learn from.
            val: examples for validation.
            batch_size: pairs in a batch.
            seed: the run's seed.
            stage: name of the training.
        """
        super().__init__(seed, stage, batch_size)
        self._train, self._val = train, val

    def sample_ids(self, training: bool) -> Sequence[str]:
        """Return the ids of one split."""
        return self.dataset(training).sample_ids

    def dataset(self, training: bool) -> PairDataset:
        """Return one split."""
        return self._train if training else self._val

    @staticmethod
    def collate(items: Sequence[PairItem]) -> PairBatch:
        """Batch pairs.

        Args:
            items: pairs of one size.

        Returns:
            The batch.
        """

        def stacked(arrays: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255.0

        return PairBatch(
            sample_ids=[item.sample_id for item in items],
            prompts=[item.prompt for item in items],
            images=stacked([item.image for item in items]) * 2 - 1,
            conditions=stacked([item.condition for item in items]),
            noise_seeds=[item.noise_seed for item in items],
        )


@lru_cache(maxsize=64)
def _reader(shard: Path) -> ShardReader:
    return ShardReader(shard)


def _middle(image: np.ndarray, size: int) -> np.ndarray:
    """Return the middle square, resized."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    way = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return cv2.resize(square, (size, size), interpolation=way)
