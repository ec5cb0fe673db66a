"""Placement of shards by `run` of params.yaml; it never changes a byte of the results."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from ml.records.config import StageConfig

ONE_THREAD: Final = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)
"""A worker computes on one thread whatever the number of workers: sums depend on it."""
Engine = Literal["local", "ray"]


class RayConfig(StageConfig):
    """Address of a Ray cluster."""

    address: str = "auto"
    """`auto`: the cluster of this machine; `HOST:PORT`; or `local`: start one here."""
    start_seconds: float = Field(default=900.0, ge=1, le=86_400)
    """How long to wait for the first worker; a cluster that adds nodes needs minutes."""


class WorkerConfig(StageConfig):
    """Resources of a worker of one stage."""

    workers: int | None = Field(default=None, ge=1, le=4096)
    """Number of concurrent workers; default: `run.workers`."""
    num_cpus: float = Field(default=1.0, ge=0, le=1024)
    """CPUs that Ray reserves for a worker, which nevertheless computes on one thread."""
    num_gpus: float | None = Field(default=None, ge=0, le=64)
    """CUDA devices of a worker; with 0.25, four workers share one. Default: one device for each
    local worker, assigned in turn, and none for Ray's."""
    memory_gib: float = Field(default=0.0, ge=0, le=100_000)
    """Memory in GiB that Ray reserves for a worker; 0: no reservation."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment variables of a worker."""

    @model_validator(mode="after")
    def _check(self) -> WorkerConfig:
        if self.num_gpus is not None and self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError(f"num_gpus above 1 must be whole, got {self.num_gpus}")
        if fixed := sorted({*ONE_THREAD, "CUDA_VISIBLE_DEVICES"} & set(self.environment)):
            raise ValueError(
                f"environment: {', '.join(fixed)} are set for every worker, because results depend "
                "on them; leave them out"
            )
        return self
