"""What a set or file from outside holds, as one number: the only thing that its results hang on."""

from __future__ import annotations

from pathlib import Path

from ml.records.models import ModelError, hash_model


class OtherContent(ValueError):
    """What is at a configured path is not what the configuration says."""


def content_of(path: Path) -> str:
    """Hash names and bytes of everything at a path.

    Args:
        path: a file, or a folder with all that is below it.

    Returns:
        sha256 in hexadecimal; the path itself and dates are no part of it.

    Raises:
        FileNotFoundError: there is nothing, or a folder without files.
    """
    try:
        return hash_model(Path(path))
    except ModelError as error:
        raise FileNotFoundError(f"{path}: expected a file, or a folder of files") from error


def check_content(key: str, path: Path, stated: str) -> str:
    """Refuse what is not what the configuration says.

    Args:
        key: where the configuration says it, for the error text.
        path: the file or folder.
        stated: the expected hash; empty if unknown.

    Returns:
        The hash.

    Raises:
        OtherContent: another hash, or none is stated; the text holds the one to state.
        FileNotFoundError: there is nothing at the path.
    """
    found = content_of(path)
    if found != stated:
        was = f"has changed since it was {stated[:12]}..." if stated else "has no hash yet"
        raise OtherContent(
            f"{key}: {path} {was}; results hang on content alone, so state it in params.yaml: "
            f"`{key}.content: {found}`"
        )
    return found
