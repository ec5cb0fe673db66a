"""The wheel: one package, `vggheads`, with the library inside it as `vggheads.ml`.

A checkout has its folders side by side and imports `ml`. Put so into an environment they would take
names that belong to everybody, so the wheel holds the library alone, and its imports and the places
that its texts name are written anew. Everything else is in pyproject.toml.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info

FACE, LIBRARY = "vggheads", "ml"


class BuildWheel(build_py):
    """Collects the packages of the wheel; an editable installation stays as the checkout is."""

    def run(self) -> None:
        """Copy the packages, then move the library into the one package."""
        if self.editable_mode:
            super().run()
            return
        target = Path(self.build_lib)
        # What an earlier build left would be packed too.
        shutil.rmtree(target, ignore_errors=True)
        super().run()
        for folder in target.iterdir():
            if folder.name not in (FACE, LIBRARY):
                shutil.rmtree(folder)
        packages = {path.name for path in (target / LIBRARY).iterdir() if path.is_dir()}
        (target / LIBRARY).rename(target / FACE / LIBRARY)
        for path in sorted((target / FACE).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            path.write_text(renamed(text, packages), encoding="utf-8")


def renamed(text: str, packages: set[str]) -> str:
    """Return a module's text with the library's new name.

    Args:
        text: of a module that says `ml.flame`, in an import or in a name.
        packages: the packages of the library.

    Returns:
        The text with `vggheads.ml.flame`; words after other dots stay, such as `x.ml.flame`.
    """
    names = "|".join(sorted(packages))
    text = re.sub(rf"(?<![\w.]){LIBRARY}\.(?=(?:{names})\b)", f"{FACE}.{LIBRARY}.", text)
    # `import ml` and its uses: the package itself, of which the path is taken.
    text = re.sub(rf"(?m)^(\s*)import {LIBRARY}$", rf"\1from {FACE} import {LIBRARY}", text)
    return re.sub(rf"(?m)^(\s*)from {LIBRARY} import", rf"\1from {FACE}.{LIBRARY} import", text)


class Names(egg_info):
    """Metadata that name the one package."""

    def run(self) -> None:
        """Write them, then the name of the package."""
        super().run()
        (Path(self.egg_info) / "top_level.txt").write_text(f"{FACE}\n", encoding="utf-8")


setup(cmdclass={"build_py": BuildWheel, "egg_info": Names})
