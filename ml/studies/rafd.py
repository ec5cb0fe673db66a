"""Photographs of known people, identified by file names in RaFD's layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml.records import reasons
from ml.records.exclusions import Exclusions

NAME = "rafd"
FRONTAL = 90
_FILE = re.compile(
    r"Rafd(?P<camera>\d{3})_(?P<identity>\d+)_(?P<group>[A-Za-z]+)_(?P<sex>male|female)_"
    r"(?P<emotion>[a-z]+)_(?P<gaze>left|frontal|right)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Photograph:
    """A photograph of a known person.

    Attributes:
        path: the file.
        identity: number of the person in the set.
        camera: degrees; 90 is from the front.
        emotion: the posed expression.
        gaze: left, frontal or right.
    """

    path: Path
    identity: str
    camera: int
    emotion: str
    gaze: str


def read_photographs(
    root: Path, exclusions: Exclusions, cameras: Sequence[int] = (45, FRONTAL, 135)
) -> list[Photograph]:
    """List the photographs of a folder named as RaFD names its own.

    Args:
        root: the folder; files may be at any depth.
        exclusions: receives images whose name identifies no person.
        cameras: which to take; from 000 and 180 no face can be recognised.

    Returns:
        Photographs in order of identity and name.

    Raises:
        FileNotFoundError: there is none.
    """
    found = []
    for path in sorted(Path(root).rglob("*.jp*g")):
        named = _FILE.fullmatch(path.stem)
        if named is None:
            detail = f"{path.name}: expected Rafd<camera>_<id>_<group>_<sex>_<emotion>_<gaze>.jpg"
            exclusions.add(path.name, reasons.BAD_NAME, detail)
        elif int(named["camera"]) in cameras:
            words = named["emotion"].lower(), named["gaze"].lower()
            found.append(Photograph(path, named["identity"], int(named["camera"]), *words))
    if not found:
        raise FileNotFoundError(
            f"{root}: no photographs Rafd<camera>_<id>_<group>_<sex>_<emotion>_<gaze>.jpg of the "
            f"cameras {', '.join(map(str, cameras))}"
        )
    return sorted(found, key=lambda one: (one.identity, one.path.name))
