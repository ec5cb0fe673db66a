"""Encoders of the transformers library in place of the YOLO-NAS one: SegFormer's and others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ml.model.backbone import FeatureMaps
from ml.model.config import EncoderConfig

EncoderName = Literal[
    "mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5",
    "convnextv2_atto", "convnextv2_tiny", "convnextv2_base", "swin_tiny", "swin_base",
]  # fmt: skip

_STRIDES = (4, 8, 16, 32)
_STAGES = ("stage1", "stage2", "stage3", "stage4")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

_SIZES: dict[str, dict[str, Any]] = {
    "mit_b0": {"hidden_sizes": [32, 64, 160, 256], "depths": [2, 2, 2, 2]},
    "mit_b1": {"hidden_sizes": [64, 128, 320, 512], "depths": [2, 2, 2, 2]},
    "mit_b2": {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3]},
    "mit_b3": {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 18, 3]},
    "mit_b4": {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 8, 27, 3]},
    "mit_b5": {"hidden_sizes": [64, 128, 320, 512], "depths": [3, 6, 40, 3]},
    "convnextv2_atto": {"hidden_sizes": [40, 80, 160, 320], "depths": [2, 2, 6, 2]},
    "convnextv2_tiny": {"hidden_sizes": [96, 192, 384, 768], "depths": [3, 3, 9, 3]},
    "convnextv2_base": {"hidden_sizes": [128, 256, 512, 1024], "depths": [3, 3, 27, 3]},
    "swin_tiny": {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24]},
    "swin_base": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]},
}
_FAMILIES = {"mit": "segformer", "convnextv2": "convnextv2", "swin": "swin"}


def encoder_config(name: EncoderName) -> EncoderConfig:
    """Return a published encoder, to be trained from scratch.

    Args:
        name: the encoder; mit_b0 to mit_b5 are SegFormer's.

    Returns:
        The configuration.

    Raises:
        ValueError: no such encoder.

    Source: Xie et al., SegFormer (2021); Woo et al., ConvNeXt V2 (2023); Liu et al., Swin (2021).
    """
    if name not in _SIZES:
        raise ValueError(f"encoder: expected one of {', '.join(_SIZES)}, got {name!r}")
    return EncoderConfig(architecture={"model_type": _FAMILIES[name.split("_")[0]], **_SIZES[name]})


def encoder_of_folder(folder: Path) -> EncoderConfig:
    """Return the encoder of a model folder, as transformers' `save_pretrained` writes it.

    Args:
        folder: holds config.json and the weights; a classifier's or a segmenter's will do.

    Returns:
        The configuration; `load_encoder_weights` brings the weights.

    Raises:
        FileNotFoundError: there is no config.json in it.
        ValueError: config.json does not name a model type.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"encoder folder: no file {path}; give the folder that save_pretrained wrote"
        )
    architecture = json.loads(path.read_text())
    if not isinstance(architecture, dict) or "model_type" not in architecture:
        raise ValueError(f"{path}: expected a model's configuration with model_type, found none")
    return EncoderConfig(architecture=architecture)


class TransformersEncoder(nn.Module):
    """An encoder of the transformers library that follows `ml.model.backbone.Encoder`.

    Attributes:
        channels: channels of c2, c3, c4, c5.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderConfig, folder: Path | None = None) -> None:
        """Build the encoder.

        Args:
            config: the architecture.
            folder: model folder with its weights; random weights if left out.

        Raises:
            ValueError: the architecture does not have maps at strides 4, 8, 16 and 32.
        """
        super().__init__()
        self.config = config
        self.model = _build(config, folder)
        for name, values in (("mean", _IMAGENET_MEAN), ("std", _IMAGENET_STD)):
            tensor = torch.tensor(values)[:, None, None]
            self.register_buffer(name, tensor, persistent=False)
        self.channels = self._probe()

    def forward(self, images: Tensor) -> FeatureMaps:
        """Return (B, 3, H, W) float in [0, 1], H and W multiples of 32 -> c2, c3, c4, c5."""
        if self.config.imagenet_normalised:
            images = (images - self.mean.to(images)) / self.std.to(images)
        if self.config.architecture["model_type"] == "segformer":
            maps = self.model(images, output_hidden_states=True).hidden_states
        else:
            maps = self.model(images).feature_maps
        c2, c3, c4, c5 = maps
        return c2, c3, c4, c5

    @torch.no_grad()
    def _probe(self) -> tuple[int, int, int, int]:
        """Return channels of the maps, after making sure of their strides."""
        training = self.model.training
        self.model.eval()
        side = 64
        maps = self(torch.zeros(1, 3, side, side))
        self.model.train(training)
        strides = tuple(side // x.shape[-1] for x in maps)
        if strides != _STRIDES:
            raise ValueError(
                f"encoder {self.config.architecture['model_type']}: expected maps at strides "
                f"{_STRIDES}, got {strides}; choose a hierarchical encoder"
            )
        return maps[0].shape[1], maps[1].shape[1], maps[2].shape[1], maps[3].shape[1]


def _build(config: EncoderConfig, folder: Path | None) -> nn.Module:
    """Return SegFormer's encoder, or any of the library's backbones.

    Without weights, or with a folder's.

    The library has no backbone class for SegFormer, whose hidden states are the maps.
    """
    from transformers import AutoConfig, SegformerConfig, SegformerModel
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

    kind, values = config.architecture["model_type"], dict(config.architecture)
    library_class: Any
    settings: Any
    if kind == "segformer":
        library_class, settings = SegformerModel, SegformerConfig(**values)
    else:
        for chosen in ("model_type", "out_indices", "out_features"):
            values.pop(chosen, None)
        settings = AutoConfig.for_model(kind, **values, out_features=list(_STAGES))
        library_class = MODEL_FOR_BACKBONE_MAPPING[type(settings)]
    if folder is None:
        return library_class(settings)
    model: nn.Module = library_class.from_pretrained(
        str(folder), config=settings, local_files_only=True
    )
    return model.train()
