"""Projects made of links, in which stages run on the results of other projects."""

from __future__ import annotations

from pathlib import Path


def link(place: Path, target: Path) -> None:
    """Make a link to a stage's results; an older link is replaced.

    Args:
        place: where the link is to be.
        target: the results.

    Raises:
        FileNotFoundError: there are no results.
    """
    if not target.exists():
        raise FileNotFoundError(f"{target}: not found; materialise '{target.name}' first")
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    place.symlink_to(target.resolve())


def slug(name: str) -> str:
    """Return a name as that of a folder: letters and digits in lower case, joined by underscores.

    Args:
        name: in a study's table.
    """
    return "_".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
