"""Configurations that every training shares; reading them loads no library."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ml.records.config import Count, Fraction, Index, NonNegative, StageConfig


class FitConfig(StageConfig):
    """The loop of one training."""

    epochs: Count = 10
    """Passes over the training samples."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Number format. auto: bf16 if the device supports it natively; emulation on a CPU takes eight
    times as long as 32 bits. 16 is for older GPUs."""
    gradient_clip: NonNegative = 0.0
    """Maximum norm of the gradient; 0: no clipping."""
    channels_last: bool = True
    """Use the channels-last memory layout, in which convolutions are faster."""
    accumulate_batches: Count = 1
    """Batches whose gradients are accumulated before a step."""
    validate_every_epochs: Count = 1
    """Maximum interval between validations; the last epoch is always validated."""
    log_every_steps: Count = 10
    """Optimiser steps between log entries."""
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    """Device type; weights are bit-identical only between runs on the same one."""
    devices: Count = 1
    """Processes on this machine, with one device each; more than one: data-parallel training with
    `batch_size` per process. If torchrun or srun starts processes, their number counts instead."""
    threads: int = Field(default=0, ge=0, le=10**9)
    """Torch threads per process, which affect the last bits of the weights; 0: `run.threads`."""
    sync_batchnorm: bool = False
    """Synchronise batch normalisation statistics between processes (GPU only)."""
    checkpoint_every_steps: Index = 0
    """Optimiser steps between checkpoints within an epoch, for epochs that take hours; 0: an
    interrupted training resumes from its last epoch."""

    def precision_here(self) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
        """Return the number format that `precision` means on this machine."""
        if self.precision != "auto":
            return self.precision
        import torch

        if self.accelerator == "gpu" or (self.accelerator == "auto" and torch.cuda.is_available()):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            capabilities = torch.cpu.get_capabilities()
            native = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
        return "bf16-mixed" if native else "32-true"

    @property
    def validation_interval(self) -> int:
        """The largest divisor of the epochs up to the requested interval."""
        wanted = range(min(self.validate_every_epochs, self.epochs), 0, -1)
        return next(distance for distance in wanted if self.epochs % distance == 0)

    @property
    def wants_all_cores(self) -> bool:
        """Whether it uses more than one core, and therefore runs exclusively."""
        return max(self.threads, self.devices) > 1


class OptimConfig(StageConfig):
    """Optimiser and schedule of one training; the defaults are those of AdamW and of Muon."""

    kind: Literal["muon", "adamw"] = "adamw"
    """`muon`: orthogonalised momentum for hidden matrices, AdamW for the others; `adamw`: AdamW for
    all."""
    muon_lr: NonNegative = 0.02
    """Peak learning rate of the orthogonalised updates."""
    muon_momentum: Fraction = 0.95
    """Nesterov momentum of the orthogonalised updates."""
    muon_linear: bool = False
    """Also orthogonalise weights of linear layers (transformers), in addition to convolutions."""
    adamw_patterns: tuple[str, ...] = ()
    """Regular expressions of parameter names that always use AdamW, such as output layers."""
    lr: NonNegative = 1e-3
    """Peak learning rate of AdamW."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    weight_decay: NonNegative = 1e-2
    """Decoupled weight decay of matrices; not applied to biases, norms and scalars."""
    schedule: Literal["cosine", "published"] = "cosine"
    """cosine: warm-up, then a cosine to the end. published: warm-up from `warmup_start_lr`,
    constant until the end of the first epoch and `warmup_steps` more steps, then the cosine."""
    warmup_steps: Index = 0
    """Steps of linear warm-up; `cosine` starts from almost zero."""
    warmup_start_lr: NonNegative = 1e-6
    """Initial learning rate of the `published` warm-up."""
    final_lr_fraction: Fraction = 0.01
    """Final value of the cosine, as a fraction of the peak."""
    ema_decay: Fraction = 0.0
    """Maximum decay of the weight average (EMA); 0: no average."""
    ema_growth: Literal["counted", "published"] = "counted"
    """Growth of the decay after n of N steps. counted: at most (1 + n) / (10 + n). published: the
    maximum times 1 - exp(-50 n / N)."""
