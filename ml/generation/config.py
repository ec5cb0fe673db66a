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
    """Leading shape coefficients that are sampled; the others are zero."""
    shape_std: float = Field(default=1.0, ge=0.0, le=3.0)
    """Standard deviation of the sampled shape coefficients."""
    num_expression: int = Field(default=32, ge=0, le=100)
    """Leading expression coefficients that are sampled; the others are zero."""
    expression_std: float = Field(default=0.8, ge=0.0, le=3.0)
    """Standard deviation of the strongest expressions; each head samples its own strength up to
    this."""
    jaw_open_fraction: float = Field(default=0.3, ge=0.0, le=1.0)
    """Fraction of heads with an open mouth."""
    jaw_open_max_rad: float = Field(default=0.30, ge=0.0, le=0.6)
    """Maximum opening of the jaw, radians."""


class RendererConfig(StageConfig):
    """The renderer's quality and variety."""

    heads: HeadVariation = HeadVariation()
    """Variety of the rendered heads."""
    supersampling: int = Field(default=2, ge=1, le=4)
    """Rendered pixels per image pixel along each axis."""
    shadow_map_px: int = Field(default=256, ge=64, le=2048)
    """Side of the shadow map for images up to 256 px; larger images get larger maps."""
    prop_probability: float = Field(default=0.16, ge=0.0, le=1.0)
    """Probability that a hand holds an object."""


class DiffusionConfig(StageConfig):
    """A diffusion model, its conditioner, and the sampling settings.

    Steps, guidance, adapter scale and scheduler are those of the paper's data generation.
    """

    base: ModelRef | None = None
    """Folder of the pipeline: SDXL or Stable Diffusion 1.5, according to the backend."""
    conditioner: ModelRef | None = None
    """T2I-Adapter or ControlNet conditioned on skeletons (or on PNCC maps)."""
    variant: str = ""
    """Variant of the base model if its reference states none; conditioners state their own."""
    steps: int = Field(default=40, ge=1, le=1000)
    """Denoising steps."""
    guidance: float = Field(default=7.0, ge=1.0, le=1e6)
    """Scale of classifier-free guidance."""
    condition_scale: float = Field(default=0.7, ge=0.0, le=1e6)
    """Weight of the T2I-Adapter or ControlNet."""
    algorithm: Literal["sde-dpmsolver++", "dpmsolver++"] = "sde-dpmsolver++"
    """DPM-Solver++ multistep, stochastic (sde) or deterministic."""
    karras_sigmas: bool = True
    """Use the noise schedule of Karras et al."""
    safety_concepts: str = "nsfw, nudity, violence"
    """Part of the negative prompt that is weighted by `safety_weight`."""
    safety_weight: float = Field(default=1.0, ge=0.0, le=4.0)
    """Interpolation of the negative embedding from the prompt without safety concepts (0) to the
    full prompt (1), and beyond."""
    max_side: int = Field(default=1280, ge=64, le=10**9)
    """Longest side of an image, px; larger poses are excluded."""
    batch_size: int = Field(default=4, ge=1, le=10**9)
    """Images of equal size that are sampled together; affects the last bit of an image."""
    device: str = "auto"
    """Where to compute; `auto` takes the GPU when there is one."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Number format; `auto` is float16 on a GPU and float32 elsewhere."""
    attention: Literal["sdpa", "sliced", "xformers"] = "sdpa"
    """Implementation of attention; `sliced` requires the least memory."""
    vae_slicing: bool = False
    """Decode the images of a batch one by one to save memory."""
    vae_tiling: bool = False
    """Decode large images in tiles, to save memory."""
    offload: bool = False
    """Keep only the active part of the model in GPU memory."""
    compile: bool = False
    """Compile the UNet: takes minutes, then speeds up each step; useful if image sizes repeat."""

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
    """Generator of the images, a name of `ml.generation.backends.GENERATORS`."""
    renderer: RendererConfig = RendererConfig()
    """Settings of the renderer; the variation of heads also applies to sdxl-pncc."""
    dense: tuple[DenseMap, ...] = ()
    """Dense ground truth maps that the renderer writes for each image, with pose, landmarks and
    visibility of every head; see docs/dense.md."""
    diffusion: DiffusionConfig = DiffusionConfig()
    """Settings of the diffusion model, for backends whose name starts with sd."""
    jpeg_quality_min: int = Field(default=72, ge=30, le=100)
    """Minimum of the sampled JPEG quality."""
    jpeg_quality_max: int = Field(default=95, ge=30, le=100)
    """Maximum of the sampled JPEG quality."""
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
    """Fraction of heads with a yaw that is uniform over all directions."""
    pitch_max_deg: float = Field(default=45.0, ge=0.0, le=90.0)
    """Maximum pitch, degrees."""
    roll_max_deg: float = Field(default=40.0, ge=0.0, le=180.0)
    """Maximum roll, degrees."""
    hat_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Probability of a hat or a headscarf."""
    hand_probability: float = Field(default=0.14, ge=0.0, le=1.0)
    """Probability that a hand is raised to the face."""
    neighbour_probability: float = Field(default=0.25, ge=0.0, le=1.0)
    """Probability of another person next to this one."""
    places_per_light: int = Field(default=0, ge=0, le=10**9)
    """Backgrounds painted per lighting; images show random windows of them, which saves time. 0:
    one background per image."""


class CropsConfig(StageConfig):
    """How many heads are rendered, and how large."""

    num_crops: int = Field(default=1600, ge=2, le=10**9)
    """Heads to render."""
    crops_per_shard: int = Field(default=200, ge=1, le=10**9)
    """Heads in a shard."""
    image_px: int = Field(default=384, ge=64, le=10**9)
    """Side of a rendered image. The head's crop with its margin takes two thirds of it; the rest
    becomes visible under shifts, zooms and rotations of the crop."""
    min_visible: Fraction = 0.2
    """Heads with a smaller visible fraction are excluded, because their image does not determine
    them."""
    val_fraction: Fraction = 0.1
    """Held-out fraction, by a hash of the crop's id."""
    jpeg_quality: Count = 95
    """Quality of the stored images."""
    preview_crops: Count = 24
    """Heads in the preview of a shard."""
    max_drop_rate: Fraction = 0.1
    """Maximum excluded fraction of a shard's heads; above it, the stage fails."""
    renderer: SingleHeadConfig = SingleHeadConfig(
        yaw_std_deg=34.0, any_yaw_fraction=0.1, pitch_max_deg=42.0, roll_max_deg=28.0
    )
    """Renderer, and distributions of rotations and occluders. The spread is as in the images (mean
    angle from frontal: 40 degrees there); augmentation adds further rotations."""
