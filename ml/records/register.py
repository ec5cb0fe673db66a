"""The asset register: what may be done with everything a run descends from.

None of this is legal advice; it is what the licences were found to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RegisteredAsset:
    """A model or a source that results may descend from.

    Attributes:
        name: how stages refer to it.
        licence: SPDX identifier, or the licence's own name.
        url: where it is published; empty for what this project makes itself.
        sha256: of the file, empty when the user brings it.
        commercial: whether results may be used commercially.
        redistributable: whether results may be given to others.
    """

    name: str
    licence: str
    url: str = ""
    sha256: str = ""
    commercial: bool = True
    redistributable: bool = True


class LicenceError(ValueError):
    """An export is forbidden by the licence of a parent; the message names it."""


_OWN = "Apache-2.0"
REGISTER: dict[str, RegisteredAsset] = {
    asset.name: asset
    for asset in (
        RegisteredAsset("procedural-head", _OWN),
        RegisteredAsset("renderer", _OWN),
        RegisteredAsset("sampled-poses", _OWN),
        RegisteredAsset("scene-grammar", _OWN),
        RegisteredAsset("rt-detr-from-scratch", _OWN),
        RegisteredAsset("crop-regressor", _OWN),
        RegisteredAsset(
            "flame-2020",
            "MPI academic licence",
            url="https://flame.is.tue.mpg.de",
            commercial=False,
            redistributable=False,
        ),
        RegisteredAsset(
            "flame-2023-open", "CC-BY-4.0 with use bans", url="https://flame.is.tue.mpg.de"
        ),
        RegisteredAsset(
            "dad-3dnet",
            "CC-BY-NC-SA-4.0",
            url="https://github.com/PinataFarms/DAD-3DHeads",
            commercial=False,
        ),
    )
}


def lookup(name: str) -> RegisteredAsset:
    """The registered asset of a name.

    Raises:
        KeyError: nothing of that name is registered.
    """
    if name not in REGISTER:
        raise KeyError(f"asset register: {name!r} is unknown, expected one of {sorted(REGISTER)}")
    return REGISTER[name]


def check_export(parents: Sequence[str], commercial: bool = False) -> None:
    """Refuse to give away what a parent forbids.

    Args:
        parents: names of everything the export descends from.
        commercial: whether the export is for commercial use.

    Raises:
        LicenceError: a parent forbids it; every such parent is named with its licence.
        KeyError: a parent is not registered.
    """
    assets = [lookup(name) for name in parents]
    forbidding = [
        f"{a.name} ({a.licence})"
        for a in assets
        if not a.redistributable or (commercial and not a.commercial)
    ]
    if forbidding:
        use = "commercial export" if commercial else "export"
        raise LicenceError(f"{use} is forbidden by {', '.join(forbidding)}")
