"""Files of a model hub at a commit, through huggingface_hub's own download and cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class HubError(ValueError):
    """A file of a hub's repository is unavailable; the message gives file and cause."""


def download_file(hub_id: str, revision: str, file: str) -> Path:
    """Take one file from the local cache, or download it into the cache.

    Args:
        hub_id: repository, `owner/name`.
        revision: its commit.
        file: name in the repository, with folders.

    Returns:
        The file in huggingface_hub's cache. With `HF_HUB_OFFLINE` set nothing is downloaded.

    Raises:
        HubError: the repository, its commit or the file is not there, or cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(hub_id, file, revision=revision))
    except LocalEntryNotFoundError as error:
        raise HubError(
            f"{file} of {hub_id} at {revision[:12]} is not in the local cache and cannot be "
            f"downloaded: {_first_line(error)}; go online, or bring the file and name its path"
        ) from error
    except EntryNotFoundError as error:
        raise HubError(
            f"{hub_id} at {revision[:12]} has no file {file}; {listed(hub_id, revision)}"
        ) from error
    except _failures() as error:
        raise HubError(f"{file} of {hub_id}: {_first_line(error)}") from error


def download_folder(hub_id: str, revision: str, patterns: Sequence[str]) -> Path:
    """Take some files of a repository from the local cache, or download them into the cache.

    Args:
        hub_id: repository, `owner/name`.
        revision: its commit.
        patterns: which files, such as `*.json`.

    Returns:
        The folder of the commit in huggingface_hub's cache.

    Raises:
        HubError: the repository or its commit is not there, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns)))
    except _failures() as error:
        raise HubError(
            f"{hub_id} at {revision[:12]} is not in the local cache and cannot be downloaded: "
            f"{_first_line(error)}; go online, or bring its files and name their path"
        ) from error


def listed(hub_id: str, revision: str) -> str:
    """Say which files a repository has, for an error message.

    Args:
        hub_id: repository, `owner/name`.
        revision: its commit.

    Returns:
        The files that the hub lists, or those in the local cache when it cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        names = HfApi().list_repo_files(hub_id, revision=revision)
        return f"it has {', '.join(sorted(names))}"
    except _failures():
        pass
    try:
        folder = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except (OSError, ValueError) as error:
        return f"its files cannot be listed: {_first_line(error)}"
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return f"in the local cache lie {', '.join(sorted(names))}"


def _failures() -> tuple[type[Exception], ...]:
    """Return the client's exceptions for a refusing or unreachable hub.

    The errors of its HTTP library are named through its own: which library it is has changed.
    """
    from huggingface_hub.errors import HfHubHTTPError

    http = tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    return (OSError, ValueError, *http)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
