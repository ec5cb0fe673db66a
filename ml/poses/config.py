"""Configuration of the poses stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ml.records.config import StageConfig


class PosesConfig(StageConfig):
    """What the sampled pictures of people look like."""

    source: Literal["sampled"] = "sampled"
    """Where poses come from; `sampled` draws them from the articulated figure."""
    width: int = Field(256, ge=64, le=2048, multiple_of=32)
    """Width of the pictures to be made, px."""
    height: int = Field(256, ge=64, le=2048, multiple_of=32)
    """Height of the pictures to be made, px."""
    max_people: int = Field(8, ge=1, le=8)
    """Most people in a picture; larger groups lose their farthest members."""
    child_share: float = Field(0.14, ge=0, le=1)
    """Share of people with a child's proportions."""
    share_portrait: float = Field(0.22, ge=0)
    """Weight of close-ups of one or two heads among the layouts."""
    share_half_body: float = Field(0.27, ge=0)
    """Weight of one to three people from the waist up."""
    share_full_body: float = Field(0.16, ge=0)
    """Weight of one to three whole figures."""
    share_group: float = Field(0.11, ge=0)
    """Weight of groups of three to eight people in rows."""
    share_scattered: float = Field(0.12, ge=0)
    """Weight of two to six people at different distances."""
    share_couple: float = Field(0.09, ge=0)
    """Weight of two people, one with an arm around the other."""
    any_yaw_share: float = Field(0.15, ge=0, le=1)
    """Share of bodies turned anywhere, also away; the others face the camera more or less."""
    cut_probability: float = Field(0.06, ge=0, le=1)
    """Probability that a person's head is moved over the picture's border."""
    max_head_overlap: float = Field(0.45, ge=0, le=1)
    """Largest share of a head that other bodies may cover; a person who covers more is moved."""
    max_attempts: int = Field(10, ge=1)
    """Draws before a pose without any visible head is excluded."""
    val_fraction: float = Field(0.06, ge=0, lt=1)
    """Share of poses in the `val` split, by a hash of the pose id."""
    test_fraction: float = Field(0.12, ge=0, lt=1)
    """Share of poses in the `test` split, by a hash of the pose id."""
    preview_poses: int = Field(24, ge=1)
    """Drawn skeletons in the preview picture of each shard."""
    max_drop_rate: float = Field(0.02, ge=0, le=1)
    """The stage fails when it excludes more than this share of a shard."""

    @model_validator(mode="after")
    def _check_shares(self) -> PosesConfig:
        shares = [value for name, value in self if name.startswith("share_")]
        if sum(shares) <= 0:
            raise ValueError("at least one share_* of the layouts must be above 0")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must leave a share for train")
        return self
