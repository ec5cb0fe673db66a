"""Dagster's web server behind the guard: `python -m dagster_project.webserver`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from dagster_project.guard import ProjectFiles, serve, server_options
from dagster_project.metadata import FILES_URL
from ml.inference.guard import guarded

if TYPE_CHECKING:
    from dagster._core.workspace.context import WorkspaceProcessContext
    from starlette.types import ASGIApp


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status.
    """
    options = server_options(__doc__, 3000, arguments)
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import PyProjectFileTarget

    # As the daemon does: it starts no run whose code location it knows by another name.
    target = PyProjectFileTarget(str(options.root / "pyproject.toml"))
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        serve(application(workspace, options.root), options)
    return 0


def application(workspace: WorkspaceProcessContext, root: Path) -> ASGIApp:
    """Return Dagster's application behind the guard, and serve the project's images.

    Args:
        workspace: Dagster's, with its instance and code location.
        root: the project folder.
    """
    # Dagster offers no place for a middleware in its command line; its application does.
    from dagster_webserver.app import create_app_from_workspace_process_context

    app = create_app_from_workspace_process_context(workspace)
    return guarded(ProjectFiles(app, root, FILES_URL))


if __name__ == "__main__":
    sys.exit(main())
