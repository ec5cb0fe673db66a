"""The gate of the crop regressor."""

from __future__ import annotations

from assets.checks.accounts import training_account
from assets.checks.bounded import bounded, only_told
from assets.checks.gates import FLAME_REGRESSOR
from assets.checks.rules import whole_suite

FLAME_REGRESSOR_GATE = whole_suite(
    "flame_regressor_gate",
    training_account("flame_regressor"),
    bounded(
        "beats_frontal",
        "Rotations are better than always frontal, and not suspiciously exact.",
        "flame_regressor",
        FLAME_REGRESSOR.judged,
        "rotation_gain",
        "nme_percent",
    ),
    bounded(
        "loss_fell",
        "The loss of training fell, and that of validation is no better than it can be.",
        "flame_regressor",
        FLAME_REGRESSOR.judged,
        "loss_ratio",
        "val_over_train",
    ),
    bounded(
        "metrics_are_numbers",
        "Every metric is a number.",
        "flame_regressor",
        FLAME_REGRESSOR.judged,
        "nan_fraction",
        "loss_nan",
    ),
    only_told("flame_regressor", FLAME_REGRESSOR.judged),
    FLAME_REGRESSOR.enough_to_judge(),
    sharded=False,
)

SUITES = (FLAME_REGRESSOR_GATE,)
