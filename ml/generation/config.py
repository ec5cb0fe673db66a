"""Configuration of the images stage and of the crops rendered for the regressor."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ml.records.config import StageConfig


class HeadVariation(StageConfig):
    """How much the rendered heads differ from the head model's mean."""

    num_shape: int = Field(default=64, ge=0, le=300)
    """Leading shape coefficients that are drawn; the rest is 0."""
    shape_std: float = Field(default=1.0, ge=0.0, le=3.0)
    """Standard deviation of the drawn shape coefficients."""
    num_expression: int = Field(default=32, ge=0, le=100)
    """Leading expression coefficients that are drawn; the rest is 0."""
    expression_std: float = Field(default=0.8, ge=0.0, le=3.0)
    """Standard deviation of the strongest expressions; each head draws its own strength below."""
    jaw_open_share: float = Field(default=0.3, ge=0.0, le=1.0)
    """Share of heads with an open mouth."""
    jaw_open_max_rad: float = Field(default=0.30, ge=0.0, le=0.6)
    """Widest opening of the jaw."""


class RendererConfig(StageConfig):
    """The renderer's quality and variety."""

    heads: HeadVariation = HeadVariation()
    """Variety of the rendered heads."""
    supersampling: int = Field(default=2, ge=1, le=4)
    """Rendered pixels per picture pixel and side."""
    shadow_map_px: int = Field(default=256, ge=64, le=2048)
    """Side of the shadow map for pictures up to 256 px; larger pictures get larger maps."""
    prop_probability: float = Field(default=0.16, ge=0.0, le=1.0)
    """Probability that a hand holds something."""


class ImagesConfig(StageConfig):
    """What the images stage does."""

    backend: Literal["renderer"] = "renderer"
    """Which generator makes the pictures, a name of `ml.generation.generator.GENERATORS`."""
    renderer: RendererConfig = RendererConfig()
    """The renderer's settings."""
    jpeg_quality_min: int = Field(default=72, ge=30, le=100)
    """Lowest JPEG quality drawn."""
    jpeg_quality_max: int = Field(default=95, ge=30, le=100)
    """Highest JPEG quality drawn."""
    preview_images: int = Field(default=40, ge=1, le=400)
    """Pictures on a shard's contact sheet."""
    max_drop_rate: float = Field(default=0.05, ge=0.0, le=1.0)
    """The stage fails when it excludes more than this share of a shard."""

    @model_validator(mode="after")
    def _ordered(self) -> ImagesConfig:
        if self.jpeg_quality_min > self.jpeg_quality_max:
            raise ValueError(
                f"jpeg_quality_min must not exceed jpeg_quality_max, got {self.jpeg_quality_min} "
                f"and {self.jpeg_quality_max}"
            )
        return self


class SingleHeadConfig(RendererConfig):
    """The renderer, and the poses of the single heads that the regressor is trained on."""

    yaw_std_deg: float = Field(default=48.0, ge=0.0)
    """Standard deviation of the yaw of most heads."""
    any_yaw_share: float = Field(default=0.12, ge=0.0, le=1.0)
    """Share of heads whose yaw is uniform over the full turn."""
    pitch_max_deg: float = Field(default=45.0, ge=0.0, le=90.0)
    """Largest pitch."""
    roll_max_deg: float = Field(default=40.0, ge=0.0, le=180.0)
    """Largest roll."""
    hat_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Probability of a hat or a headscarf."""
    hand_probability: float = Field(default=0.14, ge=0.0, le=1.0)
    """Probability that a hand is raised to the face."""
    neighbour_probability: float = Field(default=0.25, ge=0.0, le=1.0)
    """Probability that somebody stands beside."""
