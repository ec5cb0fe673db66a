"""Texts use the terms of the field: words that read like a translation are found and listed."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = (
    "README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "dvc.yaml", "params.yaml",
    "docs", "conf", "docker", "notebooks", "assets", "ops", "dagster_project", "vggheads", "ml",
    "benchmarks",
)  # fmt: skip
SUFFIXES = {"", ".py", ".md", ".yaml", ".yml", ".toml", ".ipynb"}
INSTEAD = {
    r"pictures?": "image",
    r"nobody|somebody|whoever": "name the person, the process, or say that it is missing",
    r"anew": "again",
    r"taught": "target, trained",
    r"told": "reported, identified, distinguished",
    r"lack(s|ing)?": "missing",
    r"stands?": "is, occurs, replaces",
    r"beside": "next to, in addition to",
    r"begun": "started",
    r"go(es)? on": "resume, continue",
    r"by hand": "manually",
    r"lies in (its|the|this|another|a|none)\b": "is inside",
    r"strangers?": "unrelated people",
    r"anecdotes?": "qualitative example",
}
"""Word -> what to write."""
ALLOWED = (
    r"lacks\.csv|begun\.json|nothing_lacks",  # names of files and checks
    r"^lacks$|^num_lacks$",  # keys of tables
    r"^nobody$",  # a choice
    r"^lacks$|where is this picture taken",  # has or lacks; a question to BLIP
)
ARGUMENT = re.compile(r"^\s*\w+: ")
"""The name of an argument in a docstring, which is no text."""
WORDS = {word: re.compile(rf"\b(?:{word})\b") for word in INSTEAD}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of comments and strings of a module, or the lines of any other file."""
    source = path.read_text()
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for number, line in enumerate(node.value.split("\n")):
                yield node.lineno + number, ARGUMENT.sub("", line)


def findings(path: Path) -> list[str]:
    """Return every use of a listed word in a file, and what to write instead."""
    return [
        f"{path.name}:{number}: {INSTEAD[word]!r} instead of {found[0]!r}: {line.strip()}"
        for number, line in texts(path)
        if not any(re.search(allowed, line) for allowed in ALLOWED)
        for word, pattern in WORDS.items()
        if (found := pattern.search(line))
    ]


def product() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", *PRODUCT], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    return [ROOT / name for name in listed if Path(name).suffix in SUFFIXES]


def test_the_product_uses_the_terms_of_the_field():
    files = product()
    assert len(files) > 400
    found = [f"{path.parent}/{finding}" for path in files for finding in findings(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.md", "The picture is kept.\n", ["a.md:1: 'image' instead of 'picture'"]),
        ("a.py", "picture = nobody(1)  # an image\n", []),
        ("a.py", "x = 1  # beside y\n", ["a.py:1: 'next to, in addition to' instead of 'beside'"]),
        ("a.py", 'def f():\n    """Do.\n\n    It lacks a word.\n    """\n', ["a.py:4: 'missing'"]),
        ("a.py", 'x = f"{lacking} is missing"\n', []),
        ("a.py", 'x = f"{x} goes on"\n', ["a.py:1: 'resume, continue' instead of 'goes on'"]),
    ],
)
def test_words_are_found_in_text_and_not_in_names(name, text, expected, tmp_path):
    (tmp_path / name).write_text(text)
    found = findings(tmp_path / name)
    assert len(found) == len(expected)
    assert all(one.startswith(start) for one, start in zip(found, expected, strict=True))
