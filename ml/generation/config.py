"""Configuration of the images stage and of the crops rendered for the regressor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from ml.records.config import Count, Fraction, StageConfig
from ml.records.models import ModelRef

DIFFUSION_BACKENDS: Final = ("sdxl-t2i", "sdxl-controlnet", "sd15-controlnet", "sdxl-pncc")
"""Generators that sample a diffusion model."""
EXACT_BACKENDS: Final = ("renderer", "sdxl-pncc")
"""Generators with exact ground truth; the others write none."""


DenseMap = Literal["depth", "normals", "segmentation", "instances", "uv", "pncc"]
"""Maps of dense ground truth, see `ml.generation.renderer.dense`."""


class HeadVariation(StageConfig):
    """Variation of the rendered heads around the head model's mean."""

    num_shape: int = Field(default=64, ge=0, le=300)
    """Leading shape coefficients that are drawn; the rest is 0."""
    shape_std: float = Field(default=1.0, ge=0.0, le=3.0)
    """Standard deviation of the drawn shape coefficients."""
    num_expression: int = Field(default=32, ge=0, le=100)
    """Leading expression coefficients that are drawn; the rest is 0."""
    expression_std: float = Field(default=0.8, ge=0.0, le=3.0)
    """Standard deviation of the strongest expressions; each head draws its own strength below."""
    jaw_open_fraction: float = Field(default=0.3, ge=0.0, le=1.0)
    """Fraction of heads with an open mouth."""
    jaw_open_max_rad: float = Field(default=0.30, ge=0.0, le=0.6)
    """Widest opening of the jaw."""


class RendererConfig(StageConfig):
    """The renderer's quality and variety."""

    heads: HeadVariation = HeadVariation()
    """Variety of the rendered heads."""
    supersampling: int = Field(default=2, ge=1, le=4)
    """Rendered pixels per image pixel and side."""
    shadow_map_px: int = Field(default=256, ge=64, le=2048)
    """Side of the shadow map for images up to 256 px; larger images get larger maps."""
    prop_probability: float = Field(default=0.16, ge=0.0, le=1.0)
    """Probability that a hand holds something."""


class DiffusionConfig(StageConfig):
    """A diffusion model, its conditioner, and the sampling settings.

    Steps, guidance, adapter scale and scheduler are those of the paper's data generation.
    """

    base: ModelRef | None = None
    """The pipeline's folder: SDXL or Stable Diffusion 1.5, as the backend's name says."""
    conditioner: ModelRef | None = None
    """The T2I-Adapter or ControlNet that reads the skeletons (or the heads' PNCC map)."""
    variant: str = ""
    """The base's variant, if its own reference names none; a conditioner's is in its reference."""
    steps: int = Field(default=40, ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(default=7.0, ge=1.0, le=1e6)
    """Classifier-free guidance."""
    condition_scale: float = Field(default=0.7, ge=0.0, le=1e6)
    """Weight of the T2I-Adapter or ControlNet."""
    algorithm: Literal["sde-dpmsolver++", "dpmsolver++"] = "sde-dpmsolver++"
    """DPM-Solver++ multistep, with or without noise in its steps."""
    karras_sigmas: bool = True
    """Whether steps follow the noise schedule of Karras et al."""
    safety_concepts: str = "nsfw, nudity, violence"
    """The part of the negative prompt that `safety_weight` weighs."""
    safety_weight: float = Field(default=1.0, ge=0.0, le=4.0)
    """How far the negative embedding moves towards the safety concepts; 1 is the plain prompt."""
    max_side: int = Field(default=1280, ge=64, le=10**9)
    """Longest side of an image, px; a larger pose is excluded."""
    batch_size: int = Field(default=4, ge=1, le=10**9)
    """Images of equal size sampled at once; changes the last bits of an image."""
    device: str = "auto"
    """Where to compute; `auto` takes the GPU when there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format; `auto` is float16 on a GPU and float32 elsewhere."""
    attention: Literal["sdpa", "sliced", "xformers"] = "sdpa"
    """How attention is computed; `sliced` needs the least memory."""
    vae_slicing: bool = False
    """Decode the images of a batch one by one, to save memory."""
    vae_tiling: bool = False
    """Decode large images in tiles, to save memory."""
    offload: bool = False
    """Keep only the part of the model in GPU memory that computes."""
    compile: bool = False
    """Compile the UNet: minutes at the start, faster steps; pays for sizes that repeat."""

    @model_validator(mode="before")
    @classmethod
    def _variant_of_base(cls, values: Any) -> Any:
        """Apply the shorthand to the base: adapters are published without variants."""
        if not isinstance(values, Mapping) or not values.get("variant"):
            return values
        base = values.get("base")
        if isinstance(base, Mapping) and not base.get("variant"):
            return {**values, "base": {**base, "variant": values["variant"]}}
        if isinstance(base, ModelRef) and not base.variant:
            return {**values, "base": base.model_copy(update={"variant": values["variant"]})}
        return values

    @model_validator(mode="after")
    def _concepts_to_weigh(self) -> DiffusionConfig:
        if self.safety_weight != 1.0 and not self.safety_concepts.strip():
            raise ValueError("safety_weight: safety_concepts names nothing to weigh")
        return self


class ImagesConfig(StageConfig):
    """Settings of the images stage."""

    backend: Literal["renderer", "sdxl-t2i", "sdxl-controlnet", "sd15-controlnet", "sdxl-pncc"] = (
        "renderer"
    )
    """Which generator makes the images, a name of `ml.generation.backends.GENERATORS`."""
    renderer: RendererConfig = RendererConfig()
    """The renderer's settings; its heads' variety also holds for sdxl-pncc."""
    dense: tuple[DenseMap, ...] = ()
    """Maps of dense ground truth that the renderer writes next to each image, with the pose,
    landmarks and visibility of every head; see docs/dense.md."""
    diffusion: DiffusionConfig = DiffusionConfig()
    """The diffusion model's settings, for the backends whose name begins with sd."""
    jpeg_quality_min: int = Field(default=72, ge=30, le=100)
    """Lowest JPEG quality drawn."""
    jpeg_quality_max: int = Field(default=95, ge=30, le=100)
    """Highest JPEG quality drawn."""
    preview_images: int = Field(default=40, ge=1, le=400)
    """Images on a shard's contact sheet."""
    max_drop_rate: float = Field(default=0.05, ge=0.0, le=1.0)
    """The stage fails when it excludes more than this fraction of a shard."""

    @model_validator(mode="after")
    def _ordered(self) -> ImagesConfig:
        if self.jpeg_quality_min > self.jpeg_quality_max:
            raise ValueError(
                f"jpeg_quality_min must not exceed jpeg_quality_max, got {self.jpeg_quality_min} "
                f"and {self.jpeg_quality_max}"
            )
        return self

    @model_validator(mode="after")
    def _dense_is_rendered(self) -> ImagesConfig:
        if self.dense and self.backend != "renderer":
            raise ValueError(
                f"dense: only the renderer knows depth and normals, got backend {self.backend}"
            )
        return self

    @model_validator(mode="after")
    def _models_named(self) -> ImagesConfig:
        models = (self.diffusion.base, self.diffusion.conditioner)
        if self.backend in DIFFUSION_BACKENDS and None in models:
            raise ValueError(
                f"backend {self.backend} needs diffusion.base and diffusion.conditioner, each "
                "{path or hub_id, revision, sha256, asset}"
            )
        return self


class SingleHeadConfig(RendererConfig):
    """The renderer, and the poses of the single heads that the regressor is trained on."""

    yaw_std_deg: float = Field(default=48.0, ge=0.0, le=1e6)
    """Standard deviation of the yaw of most heads."""
    any_yaw_fraction: float = Field(default=0.12, ge=0.0, le=1.0)
    """Fraction of heads whose yaw is uniform over the full turn."""
    pitch_max_deg: float = Field(default=45.0, ge=0.0, le=90.0)
    """Largest pitch."""
    roll_max_deg: float = Field(default=40.0, ge=0.0, le=180.0)
    """Largest roll."""
    hat_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Probability of a hat or a headscarf."""
    hand_probability: float = Field(default=0.14, ge=0.0, le=1.0)
    """Probability that a hand is raised to the face."""
    neighbour_probability: float = Field(default=0.25, ge=0.0, le=1.0)
    """Probability of another person next to this one."""
    places_per_light: int = Field(default=0, ge=0, le=10**9)
    """Places painted for each light, of which images show windows, which saves time.
    0 paints one for every image."""


class CropsConfig(StageConfig):
    """How many heads are rendered, and how large."""

    num_crops: int = Field(default=1600, ge=2, le=10**9)
    """Heads to render."""
    crops_per_shard: int = Field(default=200, ge=1, le=10**9)
    """Heads in a shard."""
    image_px: int = Field(default=384, ge=64, le=10**9)
    """Side of a rendered image. The head's crop with its margin takes two thirds of it; the rest
    is what shifts, zooms and rotations of the crop bring into view."""
    min_visible: Fraction = 0.2
    """Heads with a smaller visible fraction are left out: the image does not determine them."""
    val_fraction: Fraction = 0.1
    """Fraction held out, by a hash of the crop's id."""
    jpeg_quality: Count = 95
    """Quality of the stored images."""
    preview_crops: Count = 24
    """Heads on a shard's preview."""
    max_drop_rate: Fraction = 0.1
    """The stage fails when a larger fraction of a shard's heads is left out."""
    renderer: SingleHeadConfig = SingleHeadConfig(
        yaw_std_deg=34.0, any_yaw_fraction=0.1, pitch_max_deg=42.0, roll_max_deg=28.0
    )
    """The images' renderer, and the rotations and occluders of the heads: as spread as in the
    images (mean angle from frontal 40 degrees there); training turns them further."""
