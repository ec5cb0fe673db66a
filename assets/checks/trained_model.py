"""The gate of the one-pass detector."""

from __future__ import annotations

from assets.checks.accounts import training_account
from assets.checks.bounded import bounded, only_told
from assets.checks.gates import training_gate
from assets.checks.rules import whole_suite
from assets.checks.suite import Suite


def training_suite(stage: str) -> Suite:
    """Return the gate of a one-pass detector.

    Args:
        stage: the stage that trains it.
    """
    gate = training_gate(stage)
    return whole_suite(
        f"{stage}_gate",
        training_account(stage),
        bounded("finds_heads", "It finds held-out heads.", gate.group, gate.judged, "val_ap50"),
        bounded(
            "loss_fell",
            "The loss of training fell, and that of validation is no better than it can be.",
            gate.group,
            gate.judged,
            "loss_ratio",
            "val_over_train",
        ),
        bounded(
            "metrics_are_numbers",
            "Every metric is a number.",
            gate.group,
            gate.judged,
            "nan_fraction",
            "loss_nan",
        ),
        only_told(gate.group, gate.judged),
        gate.enough_to_judge(),
        sharded=False,
    )


SUITES = (training_suite("trained_model"),)
