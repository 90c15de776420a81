"""Who may include and link whom: the rule of docs/design.md, "What may include what", as a table.

The table below is the only copy outside that page. A row names a folder, the CMake library that it is, and the libraries that it may
include headers of and link. Every rule is also tried on a planted violation, so that a check that has gone blind fails.
"""

import re
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tree import C_SUFFIXES, ROOT, TreeTest, files, text_of  # noqa: E402

BASE = {"core_base"}
OPS = BASE | {"core_ops"}
SRG = OPS | {"core_srg"}
WIRE = SRG | {"core_semantic", "core_lineage", "core_wire"}
IO = WIRE | {"core_io"}
ACTORS = IO | {"core_actors"}
EXEC = ACTORS | {"exec"}
CLIENT = ACTORS | {"client_recorder", "client_protocol"}
LINK = IO | {"core_link"}
PURE = EXEC | CLIENT | {"sched", "worker_actors"}
ALL = None

# folder: (library, what it may use besides itself)
RULE: dict[str, tuple[str, set[str] | None]] = {
    "core/base": ("core_base", set()),
    "core/ops": ("core_ops", BASE),
    "core/srg": ("core_srg", OPS),
    "core/semantic": ("core_semantic", SRG),
    "core/lineage": ("core_lineage", SRG),
    "core/wire": ("core_wire", WIRE),
    "core/io": ("core_io", WIRE),
    "core/actors": ("core_actors", IO),
    "core/link": ("core_link", BASE | {"core_wire", "core_io"}),
    "core/driver": ("core_driver", LINK | {"core_actors"}),
    "sched": ("sched", ACTORS),
    "store": ("store", IO),
    "gpu_worker/exec": ("exec", ACTORS),
    "gpu_worker/actors": ("worker_actors", EXEC),
    "gpu_worker/kernels": ("kernels_cpu", OPS),
    "gpu_worker/kernels/cuda": ("kernels_cuda", OPS | {"kernels_cpu"}),
    "gpu_worker/device": ("device_cpu", IO | {"kernels_cpu"}),
    "gpu_worker/device/cuda": ("device_cuda", IO | {"kernels_cpu", "kernels_cuda", "device_cpu"}),
    "gpu_worker/device/cuda/code": ("djinn_cuda", IO | {"kernels_cuda", "device_cuda"}),
    "frontend/client/recorder": ("client_recorder", ACTORS | {"client_protocol", "djinn_abi"}),
    "frontend/client/protocol": ("client_protocol", ACTORS),
    "chaos/live": ("chaos_live", LINK),
    "frontend/client/loop": ("client_loop", CLIENT | LINK | {"chaos_live", "djinn_abi"}),
    "frontend/include": ("djinn_abi", set()),
    "frontend/pytorch": ("djinn_torch", {"djinn_abi"}),
    "frontend/python": ("_djinn", {"djinn_abi"}),
    "chaos/sim": ("chaos_sim", PURE | {"djinn_abi"}),
    "cli": ("djinn", ALL),
    "tests": ("tests_lib", ALL),
    "examples": ("examples", {"djinn_abi"}),
}
# What the rule does not allow and is there all the same, each with its reason. Nothing else of the folder may be used.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("core/wire", "core/io/blob.h"): "an encoded message is a blob, which is no port: host bytes with holders",
    ("core/wire", "core_io"): "for blob.h",
    (
        "gpu_worker/kernels/cuda",
        "tests/lib/cuda/emulator.h",
    ): "what stands for nvcc's words where device code is compiled for the tests",
}
LIBRARY_FOLDER = {library: folder for folder, (library, _) in RULE.items()}

# What makes a folder impure: threads, clocks, sockets, files and the libraries that bring them.
WORLD = re.compile(
    r"^(uv|lmdb|pthread|threads|stdatomic|poll|unistd|fcntl|time|sched|signal|netdb|dlfcn|cuda\w*"
    r"|nng/.*|mbedtls/.*|oneapi/.*|dnnl.*|sys/(socket|mman|epoll|time|stat|wait|un|uio|eventfd|ioctl).*|netinet/.*|arpa/.*)\.h$"
)
WORLD_LIBRARIES = {"uv", "nng", "lmdb", "dnnl", "openblas", "Threads::Threads", "mbedtls", "cudart"}
PURE_FOLDERS = {LIBRARY_FOLDER[library] for library in PURE} | {"chaos/sim"}
# A pure folder's one exception each, and why.
WORLD_ALLOWED: set[tuple[str, str]] = set()

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.M)
CMAKE_CALL = re.compile(r"^\s*(djinn_library|target_link_libraries)\s*\(\s*(\w+)([^)]*)\)", re.M)


def folder_of(path: str) -> str | None:
    """The row of RULE that a file belongs to: the longest folder that is a prefix of its path."""
    rows = [folder for folder in RULE if path.startswith(folder + "/")]
    return max(rows, key=len, default=None)


def may_use(folder: str, library: str) -> bool:
    own, allowed = RULE[folder]
    return library == own or allowed is ALL or library in allowed


def include_violations(root: Path) -> list[str]:
    found = []
    for path in files(*C_SUFFIXES, root=root):
        name, folder = path.as_posix(), folder_of(path.as_posix())
        if folder is None:
            found.append(f"{name}: its folder is not in the include rule")
            continue
        for ours, system in INCLUDE.findall(text_of(path, root)):
            target = ours or system
            if target.startswith("djinn/"):
                target = "frontend/include/" + target
            to = folder_of(target)
            if to is not None and not may_use(folder, RULE[to][0]) and (folder, target) not in EXCEPTIONS:
                found.append(f"{name}: includes {target}; {folder} may not use {to}")
            if system and folder in PURE_FOLDERS and WORLD.match(system) and (name, system) not in WORLD_ALLOWED:
                found.append(f"{name}: includes <{system}>; {folder} is pure: no I/O, threads, clocks")
    return found


def links(root: Path) -> dict[str, set[str]]:
    """What each library's CMakeLists.txt says that it links, direct links only."""
    found: dict[str, set[str]] = {}
    for path in files(".txt", root=root):
        if path.name != "CMakeLists.txt":
            continue
        for _, name, words in CMAKE_CALL.findall(re.sub(r"#.*", "", text_of(path, root))):
            found.setdefault(name, set()).update(re.findall(r"[\w:.+-]+", words))
    return found


def link_violations(root: Path) -> list[str]:
    found, direct = [], links(root)
    for name, words in direct.items():
        folder = LIBRARY_FOLDER.get(name)
        if folder is None:
            continue
        for library in sorted(words & LIBRARY_FOLDER.keys()):
            if not may_use(folder, library) and (folder, library) not in EXCEPTIONS:
                found.append(f"{folder}/CMakeLists.txt: links {library}, which {folder} may not use")
    reached, stack = set(), ["chaos_sim"]
    while stack:
        name = stack.pop()
        if name not in reached:
            reached.add(name)
            stack.extend(direct.get(name, ()))
    for library in sorted(reached & WORLD_LIBRARIES):
        found.append(f"chaos/sim: links {library} in the end; the simulator links pure libraries only")
    return found


class IncludeRule(TreeTest):
    def test_every_include_follows_the_rule(self):
        self.check_none(include_violations(ROOT))

    def test_every_link_follows_the_rule(self):
        self.check_none(link_violations(ROOT))

    def test_every_folder_of_the_rule_is_in_the_page_that_states_it(self):
        page = text_of(Path("docs/design.md"))
        for folder in RULE:
            self.assertIn(folder.split("/")[-1], page)


class PlantedViolations(unittest.TestCase):
    """Each planted file breaks one rule; the check must say so, and must not say more."""

    def planted(self, path: str, text: str) -> Path:
        root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
        return root

    def test_an_include_to_the_right_is_found(self):
        root = self.planted("core/ops/shape.c", '#include "core/base/arena.h"\n#include "core/srg/plan.h"\n')
        self.assertEqual(["core/ops/shape.c: includes core/srg/plan.h; core/ops may not use core/srg"], include_violations(root))

    def test_the_worker_and_the_scheduler_do_not_meet(self):
        root = self.planted("sched/place.c", '#include "gpu_worker/exec/exec.h"\n')
        self.assertEqual(1, len(include_violations(root)))

    def test_the_shim_sees_only_the_abi(self):
        root = self.planted("frontend/pytorch/shim.cpp", '#include "djinn/djinn.h"\n#include "core/base/arena.h"\n')
        self.assertEqual(1, len(include_violations(root)))

    def test_a_clock_in_a_pure_folder_is_found(self):
        root = self.planted("sched/place.c", "#include <time.h>\n#include <string.h>\n")
        self.assertEqual(1, len(include_violations(root)))

    def test_a_folder_without_a_row_is_found(self):
        root = self.planted("extra/thing.c", "")
        self.assertEqual(["extra/thing.c: its folder is not in the include rule"], include_violations(root))

    def test_a_link_to_the_right_is_found(self):
        root = self.planted("core/ops/CMakeLists.txt", "djinn_library(core_ops\n    DEPENDS core_base core_srg SYSTEM m)\n")
        self.assertEqual(["core/ops/CMakeLists.txt: links core_srg, which core/ops may not use"], link_violations(root))

    def test_a_library_of_the_world_in_the_simulator_is_found(self):
        root = self.planted("chaos/sim/CMakeLists.txt", "djinn_library(chaos_sim DEPENDS sched SYSTEM uv)\n")
        self.assertEqual(1, len(link_violations(root)))


if __name__ == "__main__":
    unittest.main()
