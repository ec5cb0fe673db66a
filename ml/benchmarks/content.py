"""Content hashes of external sets and files: results depend on nothing else of them."""

from __future__ import annotations

from pathlib import Path

from ml.records.models import ModelError, hash_model


class OtherContent(ValueError):
    """A file or folder does not have the hash that the configuration states."""


def content_of(path: Path) -> str:
    """Hash names and bytes of everything at a path.

    Args:
        path: a file, or a folder with all that is below it.

    Returns:
        sha256 in hexadecimal; the path itself and dates do not count.

    Raises:
        FileNotFoundError: nothing is there, or the folder has no files.
    """
    try:
        return hash_model(Path(path))
    except ModelError as error:
        raise FileNotFoundError(f"{path}: expected a file, or a folder of files") from error


def check_content(key: str, path: Path, stated: str) -> str:
    """Check a file or folder against the hash in the configuration.

    Args:
        key: where the configuration says it, for the error message.
        path: the file or folder.
        stated: the expected hash; empty if unknown.

    Returns:
        The hash.

    Raises:
        OtherContent: the hash differs or none is stated; the message holds the one to state.
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
