"""clang-tidy over every C file, with the checks of .clang-tidy; a file is checked again only when it, a header of this tree that it
includes, its command or the checks have changed."""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tree import ROOT, TreeTest, text_of  # noqa: E402

TIDY = "clang-tidy-14"
TREE = Path(os.environ.get("DJINN_BUILD_TREE", ROOT / "build" / "cmake"))
STAMPS = ROOT / "build" / "lint" / "tidy"
# Vector code in gcc's own builtins, which clang does not have.
GCC_ONLY = re.compile(r"gpu_worker/kernels/simd_\w+\.c$")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def closure_of(path: Path, seen: dict[Path, str]) -> dict[Path, str]:
    """The file and the headers of this tree that it includes, with their texts."""
    if path not in seen and (ROOT / path).is_file():
        seen[path] = text_of(path)
        for name in INCLUDE.findall(seen[path]):
            closure_of(Path(name), seen)
    return seen


def key_of(path: Path, command: str) -> str:
    parts = sorted(f"{name}\n{text}" for name, text in closure_of(path, {}).items())
    return hashlib.sha256(
        "\0".join([*parts, command, text_of(Path(".clang-tidy")), text_of(Path("tests/.clang-tidy"))]).encode()
    ).hexdigest()


def options_of(command: str) -> list[str]:
    """What clang needs of gcc's command: where headers are, the language, the definitions."""
    kept, words = [], shlex.split(command)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-I", "-isystem"):
            kept += [word, following]
        elif word.startswith(("-I", "-D", "-std=", "-m", "-isystem")):
            kept.append(word)
    return kept


def check(path: Path, command: str) -> str:
    """Findings in one file; "" when there are none."""
    stamp = STAMPS / (path.as_posix().replace("/", "_") + ".ok")
    key = key_of(path, command)
    if stamp.is_file() and stamp.read_text() == key:
        return ""
    done = subprocess.run(
        [TIDY, "--quiet", path, "--", *options_of(command)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        stamp.write_text(key)
        return ""
    lines = [line.removeprefix(f"{ROOT}/") for line in done.stdout.splitlines() if ": error:" in line]
    return "\n".join(lines) or done.stdout + done.stderr


class ClangTidy(TreeTest):
    def setUp(self):
        if not shutil.which(TIDY):
            self.skipTest(f"no {TIDY}; scripts/setup installs it")
        STAMPS.mkdir(parents=True, exist_ok=True)

    def test_no_file_has_a_finding(self):
        database = TREE / "compile_commands.json"
        if not database.is_file():
            self.skipTest("the tree is not configured: run make first")
        jobs = {}
        for entry in json.loads(database.read_text()):
            path = Path(entry["file"])
            if (
                path.suffix == ".c"
                and not GCC_ONLY.search(path.as_posix())
                and path.is_relative_to(ROOT)
                and not path.is_relative_to(ROOT / "build")
                and path.is_file()
            ):
                jobs[path.relative_to(ROOT)] = entry["command"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            findings = [text for text in pool.map(check, jobs, jobs.values()) if text]
        self.assertTrue(jobs)
        self.check_none(findings)

    def test_a_planted_mistake_is_found(self):
        mistakes = {
            "bugprone-suspicious-string-compare": "int f(const char *text);\n"
            'int f(const char *text) { return strcmp(text, "a") == 2; }\n',
            "clang-analyzer-unix.Malloc": "void f(char *text);\nvoid f(char *text) { free(text); if (text) free(text); }\n",
        }
        planted = STAMPS / "planted.c"
        for check_name, text in mistakes.items():
            planted.write_text("#include <stdlib.h>\n#include <string.h>\n" + text)
            done = subprocess.run(
                [TIDY, "--quiet", planted, "--", "-std=gnu11"], cwd=ROOT, capture_output=True, text=True, check=False
            )
            planted.unlink()
            self.assertIn(check_name, done.stdout)
            self.assertNotEqual(0, done.returncode)


if __name__ == "__main__":
    unittest.main()
