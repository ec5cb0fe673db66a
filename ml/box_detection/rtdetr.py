"""RT-DETR as box detector: building it small, its mixed-precision forward pass, and inference.

Source: the appendix of the paper's filtering (appendix): RT-DETR trained on boxes of heads only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig
from transformers.utils import logging as transformers_logging

from ml.box_detection.base import Boxes, Image, Scores
from ml.imaging.boxes import clip_boxes, nms
from ml.imaging.letterbox import Letterbox, letterbox_image
from ml.records.atomic import temporary_folder, write_json
from ml.records.config import Count, Index, Positive, StageConfig

# Its bars over a megabyte of weights would cut into the stages' own.
transformers_logging.disable_progress_bar()

INPUT_FILE = "input.json"
"""Stored with the weights: the preprocessing, which transformers' files do not state."""
WEIGHTS_FILE = "model.safetensors"
PRETRAINED_INPUT_SIZE = 640
"""Input side of the published RT-DETR checkpoints, px."""
NMS_IOU = 0.5
"""Of two boxes that overlap more, the weaker goes, as in the official filtering. Set prediction
should make this superfluous; a detector trained for a minute still finds heads twice."""

# Layers whose published initialisation (zeros, a prior, a ring of sampling points) is meant.
_DESIGNED_LAYERS = (
    "class_embed",
    "enc_score_head",
    "sampling_offsets",
    "attention_weights",
    "bbox_embed",
    "enc_bbox_head",
)


class RTDetrArchitecture(StageConfig):
    """Size of an RT-DETR trained from scratch; the defaults are about those of RT-DETR-R18."""

    input_size: Count = 640
    """Side of the square input, px; a multiple of 32."""
    stem_width: Count = 64
    """Channels after the stem, at stride 4."""
    widths: tuple[Count, Count, Count] = (128, 256, 512)
    """Channels at strides 8, 16 and 32."""
    depths: tuple[Count, Count, Count] = (2, 2, 2)
    """Residual blocks at each stride."""
    hidden_size: Count = 256
    """Channels of the encoder and decoder."""
    feed_forward_size: Count = 1024
    """Hidden channels of the feed-forward blocks of transformer layers."""
    attention_heads: Count = 8
    """Attention heads per layer."""
    encoder_layers: Count = 1
    """Transformer layers on the coarsest feature map."""
    encoder_expansion: Positive = 0.5
    """Channels inside the encoder's fusion blocks, as a fraction of `hidden_size`."""
    decoder_layers: Count = 3
    """Decoder layers, each of which refines all queries."""
    num_queries: Count = 300
    """Queries, the maximum number of heads detected in an image."""
    num_denoising: Index = 100
    """Denoising queries made from noisy labels in training; they stabilise the matching."""


@dataclass(frozen=True)
class RTDetrOutput:
    """Outputs of a forward pass.

    Attributes:
        boxes_cxcywh: (B, Q, 4) float32, fractions of the input's side.
        logits: (B, Q, L) float32, one per label.
        maps: (B, C, H, W) float32 each, the encoder's feature maps, finest first.
        losses: terms by name, `loss` is their sum; empty without labels.
    """

    boxes_cxcywh: Tensor
    logits: Tensor
    maps: tuple[Tensor, ...]
    losses: Mapping[str, Tensor]


def build_rtdetr(architecture: RTDetrArchitecture) -> RTDetrForObjectDetection:
    """Return a small RT-DETR with weights fit to be trained from scratch.

    The library initialises for a pretrained backbone: batch norm gains near 0.01 and linear weights
    near 0.01 leave a small network blind for thousands of steps. Here batch norms start at gain 1,
    convolutions by He and linear layers by Glorot; the layers that RT-DETR designs on purpose keep
    their initialisation.

    Args:
        architecture: sizes.

    Returns:
        The model in training mode, drawn from torch's global generator.

    Raises:
        ValueError: the input size is not a multiple of 32, or sizes do not divide.
    """
    if architecture.input_size % 32 or architecture.input_size < 64:
        raise ValueError(
            "head_detector.architecture.input_size: expected a multiple of 32 of at least 64, got "
            f"{architecture.input_size}"
        )
    if architecture.hidden_size % (2 * architecture.attention_heads):
        raise ValueError(
            "head_detector.architecture.hidden_size: expected a multiple of twice the "
            f"{architecture.attention_heads} attention heads, got {architecture.hidden_size}"
        )
    model = RTDetrForObjectDetection(_library_config(architecture))
    for name, layer in model.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(layer, nn.Linear) and not any(part in name for part in _DESIGNED_LAYERS):
            nn.init.xavier_uniform_(layer.weight)
    for head in [model.model.enc_bbox_head, *model.model.decoder.bbox_embed]:
        for hidden in head.layers[:-1]:
            nn.init.xavier_uniform_(hidden.weight)
        # Boxes start exactly at their anchors and reference points.
        nn.init.zeros_(head.layers[-1].weight)
        nn.init.zeros_(head.layers[-1].bias)
    return model.train()


def _library_config(architecture: RTDetrArchitecture) -> RTDetrConfig:
    hidden = architecture.hidden_size
    backbone = RTDetrResNetConfig(
        embedding_size=architecture.stem_width,
        hidden_sizes=list(architecture.widths),
        depths=list(architecture.depths),
        layer_type="basic",
        downsample_in_first_stage=True,
        # Strides 8, 16 and 32. The constructor takes it, its generated signature hides it.
        out_features=["stage1", "stage2", "stage3"],  # type: ignore[call-arg]
    )
    return RTDetrConfig(
        backbone_config=backbone,
        freeze_backbone_batch_norms=False,
        encoder_in_channels=list(architecture.widths),
        encoder_hidden_dim=hidden,
        hidden_expansion=architecture.encoder_expansion,
        encoder_layers=architecture.encoder_layers,
        encoder_ffn_dim=architecture.feed_forward_size,
        encoder_attention_heads=architecture.attention_heads,
        d_model=hidden,
        num_queries=architecture.num_queries,
        decoder_in_channels=[hidden] * 3,
        decoder_ffn_dim=architecture.feed_forward_size,
        decoder_layers=architecture.decoder_layers,
        decoder_attention_heads=architecture.attention_heads,
        num_denoising=architecture.num_denoising,
        id2label={0: "head"},
        label2id={"head": 0},
    )


def forward(
    model: RTDetrForObjectDetection, images: Tensor, labels: list[dict[str, Tensor]] | None = None
) -> RTDetrOutput:
    """Run the model; convolutions follow the ambient autocast, queries and losses stay float32.

    Boxes are refined through inverse sigmoids of their coordinates: at bfloat16's eight bits they
    could not be placed better than to a pixel, while the convolutions are what takes the time.

    Args:
        model: the network.
        images: (B, 3, S, S) uint8 RGB.
        labels: per image `class_labels` (N,) int64 and `boxes` (N, 4) cxcywh as fractions of the
            side; None gives no losses.

    Returns:
        Boxes, logits and losses.
    """
    pixels = images.float() / 255
    mask = torch.ones(len(images), *images.shape[-2:], device=images.device)
    features = model.model.backbone(pixels, mask)
    projections = model.model.encoder_input_proj
    maps = [project(m) for project, (m, _) in zip(projections, features, strict=True)]
    encoded = tuple(m.float() for m in model.model.encoder(maps).last_hidden_state)
    with torch.autocast(images.device.type, enabled=False):
        output = model(
            pixel_values=None,
            inputs_embeds=maps[0],
            encoder_outputs=(encoded,),
            labels=labels,
        )
    losses = {} if labels is None else _grouped_losses(output.loss, output.loss_dict)
    return RTDetrOutput(output.pred_boxes, output.logits, encoded, losses)


def _grouped_losses(total: Tensor, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sum, and the last layer's terms, which alone compare between architectures."""
    last = {name: terms[f"loss_{name}"] for name in ("vfl", "bbox", "giou")}
    return {"loss": total, **last}


def decode(output: RTDetrOutput, input_size: int) -> tuple[Tensor, Tensor]:
    """Return boxes in network pixels with scores, best first.

    Args:
        output: of a forward pass.
        input_size: side of the input, px.

    Returns:
        (B, Q, 4) boxes xyxy and (B, Q) scores. With several labels, as in a checkpoint trained on
        other classes, the best label's score counts.
    """
    scores, order = output.logits.sigmoid().amax(dim=-1).sort(dim=1, descending=True, stable=True)
    boxes = torch.gather(output.boxes_cxcywh, 1, order[..., None].expand(-1, -1, 4))
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1) * input_size, scores


def keep_best(boxes_xyxy: Boxes, scores: Scores) -> tuple[Boxes, Scores]:
    """Suppress duplicates of one image.

    Args:
        boxes_xyxy: (Q, 4) px.
        scores: (Q,).

    Returns:
        (N, 4) and (N,), best first.
    """
    order = nms(boxes_xyxy, scores, NMS_IOU)
    return boxes_xyxy[order], scores[order]


class RTDetrDetector:
    """An RT-DETR with its letterbox, as box detector."""

    name = "rt-detr"

    def __init__(
        self,
        model: RTDetrForObjectDetection,
        input_size: int,
        sha256: str = "",
        batch_size: int = 16,
        device: str = "cpu",
    ) -> None:
        """Take over a model and put it into evaluation mode.

        Args:
            model: the network.
            input_size: side of the square input, px.
            sha256: hash of the weights.
            batch_size: images in one forward pass.
            device: torch device.
        """
        self.model = model.eval()
        torch.nn.Module.to(self.model, device)
        self.input_size = input_size
        self.sha256 = sha256
        self._batch_size = batch_size
        self._device = device

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        input_size: int | None = None,
        batch_size: int = 16,
        device: str = "cpu",
    ) -> RTDetrDetector:
        """Load a folder written by `save_pretrained`, ours or the library's; no network is used.

        Args:
            folder: holds config.json and model.safetensors.
            input_size: side of the square input, px; None reads what `save_pretrained` recorded,
                and takes 640 for a folder without that record.
            batch_size: images in one forward pass.
            device: torch device.

        Returns:
            The detector.

        Raises:
            FileNotFoundError: config or weights are missing.
        """
        for needed in ("config.json", WEIGHTS_FILE):
            if not (folder / needed).is_file():
                raise FileNotFoundError(
                    f"box detector: no {needed} in {folder}; run the stage head_detector, or "
                    "point to a folder with a transformers RT-DETR in safetensors"
                )
        if input_size is None:
            record = folder / INPUT_FILE
            input_size = (
                int(json.loads(record.read_text(encoding="utf-8"))["input_size"])
                if record.is_file()
                else PRETRAINED_INPUT_SIZE
            )
        model = RTDetrForObjectDetection.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
        digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
        return cls(model, input_size, digest, batch_size, device)

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json, model.safetensors and input.json, each whole or not at all.

        Args:
            folder: created if missing.
        """
        # The library writes in place; whole files are moved in afterwards.
        with temporary_folder(folder) as temporary:
            self.model.save_pretrained(temporary)
            for name in ("config.json", WEIGHTS_FILE):
                os.replace(temporary / name, folder / name)
        write_json(folder / INPUT_FILE, {"input_size": self.input_size})

    def detect(self, images: Sequence[Image]) -> list[tuple[Boxes, Scores]]:
        """Find heads.

        Args:
            images: (H, W, 3) uint8 RGB each, sizes may differ.

        Returns:
            For every image (N, 4) boxes xyxy in its px, clipped to it, without duplicates, and (N,)
            scores, best first.

        Raises:
            ValueError: an image is empty or not RGB.
        """
        found: list[tuple[Boxes, Scores]] = []
        for start in range(0, len(images), self._batch_size):
            found += self._detect_batch(images[start : start + self._batch_size])
        return found

    @torch.inference_mode()
    def _detect_batch(self, images: Sequence[Image]) -> list[tuple[Boxes, Scores]]:
        boxed = [letterbox_image(image, self.input_size) for image in images]
        pixels = images_to_tensor([image for image, _ in boxed]).to(self._device)
        boxes, scores = decode(forward(self.model, pixels), self.input_size)
        return [
            keep_best(_to_image(boxes_of, letterbox, image), scores_of)
            for boxes_of, scores_of, (_, letterbox), image in zip(
                boxes.cpu().numpy(), scores.cpu().numpy(), boxed, images, strict=True
            )
        ]


def images_to_tensor(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Stack equally large images.

    Args:
        images: (S, S, 3) uint8 RGB each.

    Returns:
        (B, 3, S, S) uint8.
    """
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _to_image(boxes_xyxy: Boxes, letterbox: Letterbox, image: Image) -> Boxes:
    height, width = image.shape[:2]
    return clip_boxes(letterbox.boxes_to_image(boxes_xyxy), width, height)
