"""What one part of a stage needs: things that must be there, and a forward that must work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import torch

from ml.records.models import Model, ModelError, ModelRef, choose_device
from ml.records.register import REGISTER, where_to_get

_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".trcd")


@dataclass(frozen=True)
class Need:
    """One thing that must be there.

    Attributes:
        place: the value in params.yaml that names it.
        check: looks at it with the call that the stage makes; what it returns describes it.
        get: where it comes from.
    """

    place: str
    check: Callable[[], Mapping[str, str]]
    get: str = ""


@dataclass(frozen=True)
class Forward:
    """What a model took to compute.

    Attributes:
        seconds: for one image, text or crop.
        image_bytes: of the image that it made; 0 if it makes none.
    """

    seconds: float
    image_bytes: int = 0


@dataclass(frozen=True)
class Part:
    """A part of a stage: its needs, and what it computes with them.

    Attributes:
        stage: the stage.
        place: the section of params.yaml.
        needs: what must be there before anything is loaded.
        forward: loads as the stage does and computes; None where nothing computes.
        device: what the configuration asks for, None where it is no choice.
    """

    stage: str
    place: str
    needs: Sequence[Need] = ()
    forward: Callable[[], Forward] | None = None
    device: str | None = None


def model_need(place: str, ref: ModelRef | None, root: Path, device: str = "cpu") -> list[Need]:
    """Check a model reference: it exists, with the stated hash and licence, not too large.

    Args:
        place: the value in params.yaml.
        ref: the reference; none: nothing is needed here, or the backend will say what.
        root: the project folder.
        device: where it is to compute.

    Returns:
        One need, or none.
    """
    if ref is None:
        return []

    def check() -> Mapping[str, str]:
        model = ref.resolve(root)
        fits(model, device)
        return model.record()

    return [Need(place, check, where_to_get(ref.asset))]


def stated(asset: str | None, place: str) -> Mapping[str, str]:
    """Return the name and the licence of what a stage takes from outside.

    Args:
        asset: its name in the asset register.
        place: the value in params.yaml that says so.

    Raises:
        ModelError: no name, or one that the register does not know.
    """
    if asset not in REGISTER:
        raise ModelError(
            f"{place} is {asset!r}, which the asset register does not know, so nothing says under "
            "which licence it is; name what it is, or add it to ml/records/register.py"
        )
    return {"asset": str(asset), "licence": REGISTER[str(asset)].licence}


def fits(model: Model, device: str) -> None:
    """Refuse a model whose weights alone are larger than the device's memory.

    Args:
        model: the model; of a hub's folder the sizes are not known.
        device: as configured.

    Raises:
        ModelError: it does not fit.
    """
    location = Path(model.location)
    if not location.exists():
        return
    files = [location] if location.is_file() else [
        path for path in location.rglob("*") if path.suffix in _WEIGHTS
        and (not model.ref.variant or f".{model.ref.variant}" in path.name)
    ]  # fmt: skip
    size, room = sum(path.stat().st_size for path in files), memory_bytes(device)
    if size > room:
        raise ModelError(
            f"model '{model.name}': its weights are {size / 1e9:.1f} GB, {device} has "
            f"{room / 1e9:.1f} GB; take a smaller variant or another device"
        )


def memory_bytes(device: str) -> int:
    """Return the memory of a device that could be used.

    Args:
        device: `auto`, `cpu`, `cuda`.
    """
    chosen = choose_device(device)
    if chosen.type == "cuda":
        return int(torch.cuda.mem_get_info(chosen)[1])
    return int(psutil.virtual_memory().available)


def timed(call: Callable[[], Any]) -> Forward:
    """Return the time of a call, measured on its second time; the first one warms up.

    Args:
        call: computes something.
    """
    call()
    _wait()
    started = time.perf_counter()
    call()
    _wait()
    return Forward(time.perf_counter() - started)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
