"""The parser of the `vggheads` command: commands under headings, completed by shells.

It imports nothing but the standard library, so that `--help` responds quickly.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

HEADINGS: Final = {
    "run the pipeline": (
        "demo", "materialize", "check", "status", "preflight", "plan", "sync", "doctor", "ui",
    ),
    "values and results": ("config", "profile", "lineage", "compare", "study", "bench"),
    "use a detector": ("predict", "app", "export", "import-weights", "fine-tune"),
    "head models": ("import-flame", "export-head-model"),
    "evaluate": ("score", "benchmark", "evaluate", "generation-quality"),
    "datasets": (
        "generate", "export-dataset", "import-official", "check-release", "label-export",
        "label-import", "accept-statistics",
    ),
    "licences and privacy": ("licences", "takedown", "identity-index", "identity-pairs"),
    "shell": ("completion",),
}  # fmt: skip
"""Heading in `vggheads --help` -> its commands."""
_NAMES: Final = {name for names in HEADINGS.values() for name in names}
Command = str | Callable[[argparse.Namespace], int]


class CommandLine:
    """A parser whose help lists commands under headings.

    Attributes:
        parser: the parser.
    """

    def __init__(self, description: str, epilog: str | None = None) -> None:
        self.parser = argparse.ArgumentParser(
            prog="vggheads", description=description, epilog=epilog, formatter_class=_UnderHeadings
        )
        self._commands = self.parser.add_subparsers(
            title="commands", required=True, metavar="COMMAND"
        )

    @property
    def names(self) -> list[str]:
        """Names of the declared commands."""
        return list(self._commands.choices)

    def parse(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse arguments; without any, show the help.

        Args:
            arguments: those of the command line by default.

        Raises:
            ValueError: there is no such command; the message names similar ones.
        """
        given = list(sys.argv[1:] if arguments is None else arguments)
        if not given:
            self.parser.print_help(sys.stderr)
            self.parser.exit(2)
        name = next((word for word in given if not word.startswith("-")), None)
        if name is not None and name not in self.names:
            # Imported here, for it takes a few ms.
            from difflib import get_close_matches

            similar = get_close_matches(name, self.names)
            meant = f"did you mean {' or '.join(similar)}? " if similar else ""
            raise ValueError(f"no command {name!r}; {meant}`vggheads --help` lists all")
        return self.parser.parse_args(given)

    def add(self, name: str, command: Command, text: str) -> argparse.ArgumentParser:
        """Declare a command.

        Args:
            name: its name, which is under a heading.
            command: its function, or `module:name` of one.
            text: one line of help.

        Raises:
            ValueError: it is under no heading, so the help would not list it.
        """
        if name not in _NAMES:
            raise ValueError(f"command {name}: add it to a heading of vggheads.commands.HEADINGS")
        sub = self._commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command, name_of_command=name)
        return sub

    def add_completion(self, words: Callable[[], Mapping[str, Sequence[str]]] = dict) -> None:
        """Declare `completion`, which prints a script that completes these commands in a shell.

        Args:
            words: returns metavar of an argument -> its values; called when a script is printed.
        """
        script = partial(self._print_script, words)
        command = self.add("completion", script, "print the completion script of a shell")
        command.add_argument("shell", choices=("bash", "zsh"))

    def _print_script(
        self, words: Callable[[], Mapping[str, Sequence[str]]], options: argparse.Namespace
    ) -> int:
        import shtab

        from ml.records.files import existing

        values = words()
        for command in self._commands.choices.values():
            for action in command._actions:
                if str(action.metavar) in values:
                    action.choices = values[str(action.metavar)]
                elif action.type in (Path, existing) or action.metavar == "SOURCE":
                    # Read by shtab.
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
        sys.stdout.write(shtab.complete(self.parser, options.shell) + "\n")
        return 0


class _UnderHeadings(argparse.HelpFormatter):
    """Groups commands, which argparse does with options only."""

    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, argparse._SubParsersAction):
            return super()._format_action(action)
        listed = {one.dest: one for one in action._get_subactions()}
        parts = []
        for heading, names in HEADINGS.items():
            here = [self._command(listed[name]) for name in names if name in listed]
            if here:
                parts += [f"\n  {heading}:\n", *here]
        return "".join(parts)

    def _command(self, action: argparse.Action) -> str:
        self._indent()
        line = super()._format_action(action)
        self._dedent()
        return line
