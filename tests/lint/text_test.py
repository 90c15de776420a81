"""What is true of every file's text: its length, the words that do not belong in it, and a README beside it."""

import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tree import ROOT, TreeTest, files, text_of  # noqa: E402

CODE = (".c", ".h", ".cpp", ".cu", ".py")
LINES_WARNED, LINES_MAX = 600, 900
FUNCTION_LINES_WARNED = 70
README_LINES_MAX = 70
# Folders that a README above describes: the tests' mirrors, and the folders that an include path or a package's name asks for.
MIRRORS = re.compile(r"^tests/(?!(lib|lint|fuzz|bench|frontend)$)|^tests/\w+/(data|golden|corpus)|^frontend/(include|python)/")

# In classes of one letter, so that this file does not find itself.
WORDS = {
    "unfinished by its own words": re.compile(
        r"\b(T[O]DO|F[I]XME|X[X]X|H[A]CK)\b|\b(not implemente[d]|unimplemente[d]|stubbe[d])\b"
    ),
    "a number of an issue, which a reader of the code cannot open": re.compile(r"\b[Ii]ssue #?[0-9]"),
    "a path of somebody's machine": re.compile(r"(?<![\w.}])/(wor[k]|far[m]|User[s])/"),
}
TEXT = (*CODE, ".md", ".txt", ".def", ".cmake", ".yaml", ".yml", ".toml", ".sh", "")


def word_findings(root: Path) -> list[str]:
    found = []
    for path in files(*TEXT, root=root):
        for number, line in enumerate(text_of(path, root).splitlines(), 1):
            for why, pattern in WORDS.items():
                if pattern.search(line):
                    found.append(f"{path}:{number}: {why}: {line.strip()[:100]}")
    return found


def folders_without_readme(root: Path) -> list[str]:
    folders = {path.parent.as_posix() for path in files(*CODE, root=root)}
    return sorted(f for f in folders if f != "." and not MIRRORS.match(f) and not (root / f / "README.md").is_file())


def long_functions(path: Path) -> list[str]:
    """C functions over the limit: from a line that is only `{` to the next that is only `}`."""
    found, start, lines = [], None, text_of(path).splitlines()
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start is not None:
            if number - start > FUNCTION_LINES_WARNED:
                found.append(f"{path}:{start}: a function of {number - start} lines: {lines[start - 2].strip()[:80]}")
            start = None
    return found


class Text(TreeTest):
    def test_no_file_holds_words_that_do_not_belong(self):
        self.check_none(word_findings(ROOT))

    def test_every_folder_of_code_has_a_readme(self):
        self.check_none(folders_without_readme(ROOT))

    def test_the_page_of_errors_is_what_the_table_says(self):
        done = subprocess.run([ROOT / "scripts" / "errors-doc", "--check"], capture_output=True, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stdout)

    def test_a_readme_of_a_folder_is_at_most_a_page(self):
        long = [
            p.as_posix()
            for p in files(".md")
            if p.name == "README.md" and p.parent != Path(".") and len(text_of(p).splitlines()) > README_LINES_MAX
        ]
        self.check_none(long)

    def test_no_file_is_far_too_long(self):
        lengths = {path: len(text_of(path).splitlines()) for path in files(*CODE)}
        warnings = [f"{path}: {lines} lines; is it one idea?" for path, lines in lengths.items() if lines > LINES_WARNED]
        for path in files(".c"):
            warnings += long_functions(path)
        if warnings:
            sys.stderr.write("\nwarnings:\n" + "\n".join(sorted(warnings)) + "\n")
        self.assertEqual([], [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > LINES_MAX])


class PlantedViolations(unittest.TestCase):
    def planted(self, text: str) -> Path:
        root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (root / "sched").mkdir()
        (root / "sched" / "place.c").write_text(text)
        return root

    def test_unfinished_words_are_found(self):
        for text in (
            "// TO" + "DO: place it\n",
            "// as issue " + "#12 says\n",
            "open('/wo" + "rk/x');\n",
        ):
            self.assertEqual(1, len(word_findings(self.planted(text))), text)
        self.assertEqual([], word_findings(self.planted("// the worker's session issues 3 calls; network/work/path\n")))

    def test_a_missing_readme_is_found(self):
        root = self.planted("")
        self.assertEqual(["sched"], folders_without_readme(root))
        (root / "sched" / "README.md").write_text("Placement.")
        self.assertEqual([], folders_without_readme(root))


if __name__ == "__main__":
    unittest.main()
