"""The Lightning module every training of the project derives from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ml.training.optim import OptimConfig, build_optimizer


class NonFiniteTraining(RuntimeError):
    """A loss term or the gradient became NaN or infinite; training stops before it spreads."""


class TrainingModule(pl.LightningModule):
    """Optimisation, loss terms and the non-finite stop; a subclass supplies the losses.

    Subclasses implement `losses(batch)` and, for validation, `validation_step` with
    `self.log("val/<name>", value, on_epoch=True, batch_size=...)`. Means of the loss terms over
    an epoch are logged by `EpochMeans`, which a resume in mid-epoch does not disturb.

    Attributes:
        batch_size: samples of the last training batch.
        batch_terms: its loss terms, detached.
    """

    def __init__(self, optim: OptimConfig) -> None:
        """Remember the optimiser's configuration.

        Args:
            optim: optimiser and schedule.
        """
        super().__init__()
        self.optim_config = optim
        self._current_ids: Sequence[str] = ()
        self.batch_size = 0
        self.batch_terms: Mapping[str, Tensor] = {}

    @abstractmethod
    def losses(self, batch: Any) -> Mapping[str, Tensor]:
        """Return the loss terms of a training batch.

        Args:
            batch: what the data module's collate returned.

        Returns:
            Scalars by name; `loss` is the one to minimise, the others are logged.
        """

    def sample_ids(self, batch: Any) -> Sequence[str]:
        """Return ids of a batch's samples, for error messages.

        Args:
            batch: what the data module's collate returned.

        Returns:
            The batch's `sample_ids`, empty if it has none.
        """
        if isinstance(batch, Mapping):
            return list(batch.get("sample_ids", ()))
        return list(getattr(batch, "sample_ids", ()))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return one step: losses, the finite check, logging.

        Args:
            batch: what the data module's collate returned.
            batch_idx: number of the batch in its epoch.

        Returns:
            The scalar to minimise.

        Raises:
            NonFiniteTraining: a term is NaN or infinite; ids and term are named.
        """
        self._current_ids = self.sample_ids(batch)
        terms = dict(self.losses(batch))
        values = torch.stack([value.detach().float().reshape(()) for value in terms.values()])
        if not bool(torch.isfinite(values).all()):
            bad = [
                f"{name} = {value:g}"
                for name, value in zip(terms, values.tolist(), strict=True)
                if not -float("inf") < value < float("inf")
            ]
            raise NonFiniteTraining(self._where(f"loss term {', '.join(bad)} is not finite"))
        loss = terms["loss"]
        self.batch_size = max(len(self._current_ids), 1)
        self.batch_terms = {name: value.detach() for name, value in terms.items()}
        self.log("train/loss_step", loss.detach(), on_step=True, batch_size=self.batch_size)
        return loss

    def configure_optimizers(self) -> Any:
        """Return the optimiser and the per-step schedule for Lightning.

        Returns:
            Lightning's dictionary form.
        """
        total = int(self.trainer.estimated_stepping_batches)
        per_epoch = total // max(self.trainer.max_epochs or 1, 1)
        optimizer, schedule = build_optimizer(self, self.optim_config, total, per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": 1},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the global norm and stop on a non-finite gradient.

        Args:
            optimizer: the optimiser about to step.
            gradient_clip_val: largest allowed norm; None clips nothing.
            gradient_clip_algorithm: unused, the norm is clipped.

        Raises:
            NonFiniteTraining: the norm is NaN or infinite under a precision without loss scaling.
        """
        params = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
        scaled = str(self.trainer.precision).startswith("16")
        if not scaled and not bool(torch.isfinite(norm)):
            bad = [
                name
                for name, p in self.named_parameters()
                if p.grad is not None and not bool(torch.isfinite(p.grad).all())
            ]
            raise NonFiniteTraining(
                self._where(
                    f"gradient of {len(bad)} parameters (first: {', '.join(bad[:3]) or 'norm'}) "
                    "is not finite"
                )
            )
        # After the look: dividing by an infinite norm makes every parameter's gradient NaN.
        if gradient_clip_val is not None:
            torch.nn.utils.clip_grads_with_norm_(params, gradient_clip_val, norm)

    def _where(self, what: str) -> str:
        """Return the error text that names the step and the samples."""
        ids = ", ".join(self._current_ids) or "unknown"
        return (
            f"{type(self).__name__}: {what} at epoch {self.trainer.current_epoch}, step "
            f"{self.trainer.global_step}, samples [{ids}]; look at these samples' labels, "
            "or lower the learning rate"
        )
