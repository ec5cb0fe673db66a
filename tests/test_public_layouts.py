"""Models in the layout of their public folders load by the calls that production makes.

The lists of files are those of the hub's pages; the weights are tiny. A folder with another file,
or without one, fails the first test, so that no layout of our own is tested by mistake.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ml.generation.config import ImagesConfig
from ml.records.models import ModelError, ModelRef
from ml.stages.config import read_profile

_ADAPTER = {"config.json", "diffusion_pytorch_model.safetensors"}
_SDXL_PARTS = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
FILES: dict[str, set[str]] = {
    "t2i-adapter": _ADAPTER,
    "sdxl-controlnet": _ADAPTER,
    "sd15-controlnet": _ADAPTER,
    "sdxl": {
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"{tokenizer}/{name}"
          for tokenizer in ("tokenizer", "tokenizer_2")
          for name in ("merges.txt", "vocab.json", "tokenizer_config.json",
                       "special_tokens_map.json")),
        *(f"{part}/config.json" for part in _SDXL_PARTS),
        *(f"{part}/{stem}{variant}.safetensors"
          for part, stem in _SDXL_PARTS.items() for variant in ("", ".fp16")),
    },
}  # fmt: skip
