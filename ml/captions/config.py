"""Configuration of the captions stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml.captions.prompts import NEGATIVE_PROMPT, QUALITY_SUFFIX
from ml.records.config import StageConfig
from ml.records.models import ModelRef


class GlinerConfig(StageConfig):
    """The model that finds names."""

    model: ModelRef | None = None
    """GLiNER's folder."""
    encoder: ModelRef | None = None
    """Base model of GLiNER for folders without tokenizer and encoder configuration, such as the
    published ones: folder or repository of the model named in `gliner_config.json`."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Minimum confidence of a name."""
    batch_size: int = Field(default=16, ge=1, le=10**9)
    """Captions in one forward pass."""
    device: str = "auto"
    """Where to compute; `auto` takes the GPU when there is one."""


class CaptionsConfig(StageConfig):
    """How captions are made, cleared of names and turned into prompts."""

    captioner: Literal["scene-grammar", "source"] = "scene-grammar"
    """Source of captions: `scene-grammar` draws a scene and describes it; `source` uses the
    description of the source image from the poses stage."""
    name_detector: Literal["gazetteer", "gliner"] = "gazetteer"
    """Detector of personal names; `gazetteer` uses the bundled lists and the rule of capitalised
    pairs."""
    gliner: GlinerConfig = GlinerConfig()
    """Model of the name detector `gliner`."""
    name_probability: float = Field(0.04, ge=0, le=1)
    """Probability that the grammar adds a person's name, as image captioners sometimes do."""
    hat_probability: float = Field(0.22, ge=0, le=1)
    """Probability that the grammar gives a person a hat or a headscarf."""
    max_described: int = Field(3, ge=1, le=8)
    """Maximum number of people whose clothing a caption describes, nearest first."""
    variants_per_pose: int = Field(1, ge=1, le=10**9)
    """Captions, and thus images, per pose."""
    diversify_probability: float = Field(0.8, ge=0, le=1)
    """Probability that a person in the prompt gets a term of origin."""
    suffix_probability: float = Field(0.5, ge=0, le=1)
    """Probability that the quality suffix is appended."""
    suffix: str = QUALITY_SUFFIX
    """The quality suffix, with its leading comma."""
    negative_prompt: str = NEGATIVE_PROMPT
    """Negative prompt of the generator."""
    max_drop_rate: float = Field(0.3, ge=0, le=1)
    """The stage fails when it excludes more than this fraction of a shard (paper: 20.6 %)."""
