"""The files of this tree as the lint tests see them: what lies outside build/ and is not hidden, with paths from the root."""

import unittest
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SKIPPED = {"build", "__pycache__", "node_modules"}
C_SUFFIXES = {".c", ".h", ".cpp", ".cu", ".cuh", ".def"}


def files(*suffixes: str, root: Path = ROOT, under: str = ".") -> Iterator[Path]:
    """Yields the files with one of these suffixes (all files without any), as paths relative to the root."""
    stack = [root / under]
    while stack:
        folder = stack.pop()
        if not folder.is_dir():
            continue
        for entry in sorted(folder.iterdir()):
            if entry.is_symlink():
                continue
            if entry.is_dir():
                if entry.name not in SKIPPED and not entry.name.startswith("."):
                    stack.append(entry)
            elif not suffixes or entry.suffix in suffixes:
                yield entry.relative_to(root)


def text_of(path: Path, root: Path = ROOT) -> str:
    """The text of a file of this tree; "" when it is not text or is gone by now."""
    try:
        return (root / path).read_text()
    except (UnicodeDecodeError, FileNotFoundError):
        return ""


class TreeTest(unittest.TestCase):
    """A test whose failure is a list of findings, one a line."""

    def check_none(self, findings: list[str]) -> None:
        if findings:
            self.fail("\n".join(["", *findings]))
