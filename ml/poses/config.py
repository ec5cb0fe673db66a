"""Configuration of the poses stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ml.poses.describers import DescriberConfig
from ml.records.config import StageConfig
from ml.records.models import FileOrFolder, ModelRef


class EstimatorConfig(StageConfig):
    """Which model finds people and their keypoints in source images."""

    backend: Literal["vitpose", "yolo-nas-pose"] = "vitpose"
    """A name of `ml.poses.backends.ESTIMATORS`."""
    person_detector: ModelRef | None = None
    """Detector with the label `person` (RT-DETR, D-FINE and others); vitpose needs it."""
    pose_model: FileOrFolder | None = None
    """ViTPose's folder, or YOLO-NAS-Pose's checkpoint."""
    architecture: str = "yolo_nas_pose_l"
    """super-gradients' name of the checkpoint's architecture."""
    worker_python: str = ".venv-super-gradients/bin/python"
    """Interpreter of the environment that `make super-gradients` sets up."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Lowest confidence that there is a person."""
    min_keypoints: int = Field(default=3, ge=1, le=17)
    """Fewest certain keypoints of a person."""
    max_people: int = Field(default=8, ge=1, le=8)
    """Most people in a pose; the largest stay."""
    device: str = "auto"
    """Where to compute; `auto` takes the GPU when there is one."""

    @model_validator(mode="after")
    def _pose_model_of_backend(self) -> EstimatorConfig:
        if self.pose_model is not None:
            self.pose_model.check_kind(is_file=self.backend == "yolo-nas-pose")
        return self


class SourceConfig(StageConfig):
    """Images that poses are estimated in; none of their pixels or words is kept."""

    path: str = ""
    """Folder of images, or of tars as img2dataset writes them; relative to the project, or the
    address of one (`s3://bucket/folder`), which is read in place."""
    asset: str = "own-images"
    """Name of the source in the asset register."""
    shards_per_tar: int = Field(default=10, ge=1, le=10**9)
    """Shards that share one tar; at least its samples / `run.shard_size`."""
    label_field: str = "NSFW"
    """Field of an image's JSON that says whether it is safe."""
    refused_labels: tuple[str, ...] = ("NSFW", "UNSURE")
    """Values of that field, in capitals, whose images are refused."""
    require_label: bool = False
    """Refuse images that have no such field."""
    max_aspect: float = Field(default=2.0, ge=1, le=1e6)
    """Longest side by shortest side."""
    max_pixels: int = Field(default=100_000_000, ge=1, le=10**9)
    """Largest image that is decoded."""
    max_bytes: int = Field(default=50_000_000, ge=1, le=10**9)
    """Largest file that is read."""
    min_side_px: int = Field(default=1024, ge=64, le=10**9)
    """Shorter side of the image to be made, px."""
    max_side_px: int = Field(default=1280, ge=64, le=10**9)
    """Longer side at most, px; then the shorter one gets less."""
    size_multiple: int = Field(default=16, ge=1, le=10**9)
    """Both sides are multiples of this."""
    batch_size: int = Field(default=8, ge=1, le=10**9)
    """Images looked at together."""
    estimator: EstimatorConfig = EstimatorConfig()
    """What finds the people."""
    describer: DescriberConfig = DescriberConfig()
    """What describes an image in neutral words; the caption comes from here."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> SourceConfig:
        if not self.size_multiple <= self.min_side_px <= self.max_side_px:
            raise ValueError(
                f"expected size_multiple <= min_side_px <= max_side_px, got {self.size_multiple}, "
                f"{self.min_side_px} and {self.max_side_px}"
            )
        return self


class PosesConfig(StageConfig):
    """What the sampled images of people look like."""

    source: Literal["sampled", "folder", "webdataset"] = "sampled"
    """Where poses come from: drawn from the articulated figure, or estimated in images of a
    folder or of img2dataset's tars."""
    images: SourceConfig = SourceConfig()
    """The source images, when poses are estimated."""
    width: int = Field(256, ge=64, le=2048, multiple_of=32)
    """Width of the images to be made, px."""
    height: int = Field(256, ge=64, le=2048, multiple_of=32)
    """Height of the images to be made, px."""
    max_people: int = Field(8, ge=1, le=8)
    """Most people in an image; larger groups lose their farthest members."""
    child_fraction: float = Field(0.14, ge=0, le=1)
    """Fraction of people with a child's proportions."""
    fraction_portrait: float = Field(0.22, ge=0, le=1e6)
    """Weight of close-ups of one or two heads among the layouts."""
    fraction_half_body: float = Field(0.27, ge=0, le=1e6)
    """Weight of one to three people from the waist up."""
    fraction_full_body: float = Field(0.16, ge=0, le=1e6)
    """Weight of one to three whole figures."""
    fraction_group: float = Field(0.11, ge=0, le=1e6)
    """Weight of groups of three to eight people in rows."""
    fraction_scattered: float = Field(0.12, ge=0, le=1e6)
    """Weight of two to six people at different distances."""
    fraction_couple: float = Field(0.09, ge=0, le=1e6)
    """Weight of two people, one with an arm around the other."""
    any_yaw_fraction: float = Field(0.15, ge=0, le=1)
    """Fraction of bodies turned anywhere, also away; the others face the camera more or less."""
    frontal_fraction: float = Field(0.45, ge=0, le=1)
    """Fraction of those bodies that face the camera rather directly; the others have any angle up
    to a profile."""
    farthest_head: float = Field(0.072, gt=0, le=0.32)
    """Smallest head among scattered people, fraction of the image's shorter side."""
    gaze_fraction: float = Field(1 / 3, gt=0, lt=1)
    """Mean fraction of the body's turn by which heads turn back to the camera."""
    bent_fraction: float = Field(0.0, ge=0, le=1)
    """Fraction of heads that are bent far down, up or sideways, on top of what all necks do."""
    cut_probability: float = Field(0.06, ge=0, le=1)
    """Probability that a person's head is moved over the image's border."""
    max_head_overlap: float = Field(0.45, ge=0, le=1)
    """Largest fraction of a head that other bodies may cover; a person who covers more is moved."""
    max_attempts: int = Field(10, ge=1, le=10**9)
    """Draws before a pose without any visible head is excluded."""
    val_fraction: float = Field(0.06, ge=0, lt=1)
    """Fraction of poses in the `val` split, by a hash of the pose id."""
    test_fraction: float = Field(0.12, ge=0, lt=1)
    """Fraction of poses in the `test` split, by a hash of the pose id."""
    preview_poses: int = Field(24, ge=1, le=10**9)
    """Drawn skeletons in the preview image of each shard."""
    max_drop_rate: float = Field(0.02, ge=0, le=1)
    """The stage fails when it excludes more than this fraction of a shard."""

    @model_validator(mode="after")
    def _check_fractions(self) -> PosesConfig:
        fractions = [value for name, value in self if name.startswith("fraction_")]
        if sum(fractions) <= 0:
            raise ValueError("at least one fraction_* of the layouts must be above 0")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must leave a fraction for train")
        return self
