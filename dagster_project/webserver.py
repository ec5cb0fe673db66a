"""Dagster's web server behind the guard: `python -m dagster_project.webserver`."""

from __future__ import annotations

import sys

import dagster as dg

from dagster_project.guard import ProjectFiles, guarded, serve, server_options
from dagster_project.metadata import FILES_URL


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status.
    """
    options = server_options(__doc__, 3000, arguments)
    # Dagster offers no place for a middleware in its command line; its application does.
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget
    from dagster_webserver.app import create_app_from_workspace_process_context

    target = ModuleTarget(
        module_name="dagster_project.definitions",
        attribute=None,
        working_directory=str(options.root),
        location_name="vggheads",
    )
    with (
        dg.DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target) as workspace,
    ):
        app = create_app_from_workspace_process_context(workspace)
        shown = ProjectFiles(app, options.root, FILES_URL)
        serve(guarded(shown), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
