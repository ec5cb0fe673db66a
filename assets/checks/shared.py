"""Checks that tables of several stages have in common."""

from __future__ import annotations

from great_expectations import expectations as gxe

from assets.checks.suite import Check, critical, warning

NOT_EMPTY = critical(
    "not_empty", gxe.ExpectTableRowCountToBeBetween, "The table has rows.", min_value=1
)
SPLITS = critical(
    "split_known",
    gxe.ExpectColumnValuesToBeInSet,
    "Every row belongs to one split.",
    column="split",
    value_set=["train", "val", "test"],
)
HEAD_UNIQUE = critical(
    "head_unique",
    gxe.ExpectCompoundColumnsToBeUnique,
    "A head of an image is listed once.",
    column_list=["sample_id", "head_id"],
)
MAX_PX = 4096
"""No head of a person is wider than this many pixels in an image of any profile."""


def box_checks() -> tuple[Check, ...]:
    """Return the checks of boxes that `tables.boxes` took apart."""
    return tuple(
        critical(
            f"box_{side}_positive",
            gxe.ExpectColumnValuesToBeBetween,
            "A head's box has an area.",
            column=f"box_{side}",
            min_value=0,
            strict_min=True,
            max_value=MAX_PX,
        )
        for side in ("width", "height")
    ) + tuple(
        critical(
            f"box_{side}_there",
            gxe.ExpectColumnValuesToNotBeNull,
            "A box is four finite numbers.",
            column=f"box_{side}",
        )
        for side in ("left", "top", "width", "height")
    )


def flame_checks() -> tuple[Check, ...]:
    """Return the checks of FLAME parameters that `tables.heads` reduced."""
    return (
        critical(
            "flame_finite",
            gxe.ExpectColumnValuesToBeInSet,
            "The 413 parameters are finite numbers.",
            column="flame_finite",
            value_set=[True],
        ),
        critical(
            "rotation_is_6d",
            gxe.ExpectColumnValuesToBeBetween,
            "The six rotation numbers are two orthonormal columns.",
            column="rotation_error",
            min_value=0,
            max_value=0.02,
        ),
        critical(
            "scale_positive",
            gxe.ExpectColumnValuesToBeBetween,
            "The scale is in pixels per metre: a head is 5 to 5000 px high.",
            column="scale_px_per_m",
            min_value=20,
            max_value=20_000,
        ),
        warning(
            "coefficients_plausible",
            gxe.ExpectColumnValuesToBeBetween,
            "Shape and expression stay within a few standard deviations.",
            column="coefficient_max",
            min_value=0,
            max_value=8,
        ),
    )
