"""The layout of C, C++ and Python is what clang-format and ruff make of it, and ruff finds no mistakes."""

import re
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tree import ROOT, TreeTest  # noqa: E402

RUFF = ROOT / "build" / "venv" / "bin" / "ruff"


def run(*command: object) -> tuple[int, str]:
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr)


class Format(TreeTest):
    def test_make_format_would_change_nothing(self):
        if not shutil.which("clang-format-14"):
            self.skipTest("no clang-format-14; scripts/setup installs it")
        code, text = run("scripts/format", "--check")
        # Two clang-formats write at once: names are looked for, not lines.
        names = sorted(set(re.findall(r"\./([\w/.]+\.(?:c|cpp|cu)):\d+", text)))
        self.check_none(names or ([text] if code else []))

    def test_ruff_finds_no_mistake(self):
        if not RUFF.exists():
            self.skipTest("build/venv has no ruff; scripts/setup installs it")
        code, text = run(RUFF, "check", "--quiet", ".")
        self.assertEqual(0, code, text)


if __name__ == "__main__":
    unittest.main()
