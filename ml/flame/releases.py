"""Which release of FLAME a file is, identified by its bytes or else by its content.

Coefficients of one release mean nothing in another, and only FLAME 2023 Open may be given away, so
a file's name is not believed. The hashes are those that several public
projects state for the files they use; FLAME 2023 also exists without jaw rotation in its
expressions, whose full hash is not published. A file of unknown bytes (saved again, without chumpy)
is identified by its content: only FLAME 2023 Open describes its expressions, the last 100
directions, under `supr_expression_metadata`. The standard releases 2020 and 2023 have the same
keys, shapes and triangles and cannot be distinguished then; the record says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ml.flame.safe_pickle import FlameFileError
from ml.records.register import lookup

OPEN_KEY: Final = "supr_expression_metadata"
"""The key that only FLAME 2023 Open has."""
OPEN_DESCRIPTION: Final[Mapping[str, object]] = {"n_expr": 100, "expr_components": "last_100"}
"""What FLAME 2023 Open says there, among other things."""


@dataclass(frozen=True)
class Release:
    """A release of FLAME.

    Attributes:
        asset: its name in the asset register.
        title: as it is published.
        file: the published file's name.
        has_open_key: whether it describes its expressions under `OPEN_KEY`.
    """

    asset: str
    title: str
    file: str
    has_open_key: bool

    @property
    def sha256(self) -> str:
        """Hash of the published file, from the asset register."""
        return lookup(self.asset).sha256


RELEASES: Final = (
    Release("flame-2020", "FLAME 2020", "generic_model.pkl", has_open_key=False),
    Release("flame-2023", "FLAME 2023", "flame2023.pkl", has_open_key=False),
    Release("flame-2023-open", "FLAME 2023 Open", "flame2023_Open.pkl", has_open_key=True),
)


def identify(path: Path, sha256: str, content: Mapping[Any, Any], asset: str | None) -> str:
    """Identify the release of a file, and reject it if it is declared as another.

    Args:
        path: the file, for the message.
        sha256: of the file.
        content: what it holds, by its keys.
        asset: what the configuration calls it in the asset register; None: nothing.

    Returns:
        The release, and how it was identified; for unknown bytes also what is uncertain.

    Raises:
        FlameFileError: the file is not of the release that `asset` names.
    """
    known = next((r for r in RELEASES if r.sha256 == sha256), None)
    if known is not None:
        if asset not in (None, known.asset):
            raise FlameFileError(
                f"FLAME file {path}: by its sha256 it is {known.title}, but "
                f"head_model.source_asset says {asset}; {_advice(known.asset)}"
            )
        return f"{known.title} (known sha256)"
    is_open = _describes_open_expressions(content)
    possible = [r for r in RELEASES if r.has_open_key == is_open]
    titles = " or ".join(r.title for r in possible)
    if asset in {r.asset for r in RELEASES} and asset not in {r.asset for r in possible}:
        description = ", ".join(f"{key} {value}" for key, value in OPEN_DESCRIPTION.items())
        raise FlameFileError(
            f"FLAME file {path}: it {'has' if is_open else 'lacks'} the description of its "
            f"expressions that FLAME 2023 Open alone has ({OPEN_KEY}: {description}), so it is "
            f"{titles}, but head_model.source_asset says {asset}; "
            f"{_advice(' or '.join(r.asset for r in possible))}"
        )
    told = f"{titles} by its content; its sha256 is of no known file"
    if len(possible) == 1:
        return told
    called = f" than that it is called {asset}" if asset else ""
    return f"{told}, and nothing in it says which of them{called}"


def _describes_open_expressions(content: Mapping[Any, Any]) -> bool:
    """Return whether a file describes its expressions as FLAME 2023 Open does."""
    description = content.get(OPEN_KEY)
    return isinstance(description, Mapping) and all(
        description.get(key) == value for key, value in OPEN_DESCRIPTION.items()
    )


def _advice(asset: str) -> str:
    return (
        f"set source_asset: {asset}, or bring the file of the release that is meant: their licences"
        " and their coefficients differ"
    )
