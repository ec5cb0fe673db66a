"""Dagster's web server behind the guard: `python -m dagster_project.webserver`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import dagster as dg

from dagster_project.guard import ProjectFiles, guarded
from dagster_project.metadata import FILES_URL

HOST = "127.0.0.1"


def main(arguments: list[str] | None = None) -> int:
    """Serve until interrupted.

    Args:
        arguments: those of the command line by default.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="the project folder")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--host", default=HOST, help="0.0.0.0 in a container (%(default)s)")
    options = parser.parse_args(arguments)
    # Dagster offers no place for a middleware in its command line; its application does.
    import uvicorn
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
        uvicorn.run(guarded(shown), host=options.host, port=options.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
