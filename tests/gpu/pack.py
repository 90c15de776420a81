"""Packs the tree that is carried to a GPU's machine: stripped binaries and what they need, pytest, the sources that are compiled or run there."""

from __future__ import annotations

import importlib.util
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tree import BUILD, DJINN, ROOT, Refused

ARCHIVE_BYTES_MAX = 60 << 20
SOURCES = ("frontend/include", "frontend/pytorch", "frontend/python", "scripts", "tests/gpu", "tests/gpu_worker/kernels")
LIBRARIES = ("libdjinn.so", "libdjinn_cuda.so", "libdjinn_kernels_cuda.so", "libdjinn_kernels_test.so")
EMULATED = ("libdjinn.so", "libdjinn_cuda_emulated.so", "libdjinn_kernels_device.so", "libdjinn_kernels_test.so")
SUITE = "gpu_worker_device_cuda_module_module_test"
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")
OF_THE_SYSTEM = ("linux-vdso", "libc.so", "libm.so", "libpthread", "libdl", "librt", "ld-linux")


def needed_libraries(binary: Path) -> list[Path]:
    told = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    paths = [words[2] for line in told.splitlines() if len(words := line.split()) > 2 and words[1] == "=>"]
    return [Path(p) for p in paths if p.startswith("/") and not any(Path(p).name.startswith(s) for s in OF_THE_SYSTEM)]


def find_suite() -> Path | None:
    """The newest build of the suite of all devices."""
    return max(BUILD.glob(f"*/tests/{SUITE}"), key=lambda p: p.stat().st_mtime, default=None)


def add_binaries(archive: tarfile.TarFile, names: tuple[str, ...]) -> None:
    suite = find_suite()
    programs = [(DJINN, "build/bin/djinn"), *([(suite, f"build/tests/{SUITE}")] if suite else [])]
    binaries = [source for source, _ in programs] + [BUILD / "lib" / name for name in names]
    needed = {p.name: p for binary in binaries for p in needed_libraries(binary)}
    for name in names:
        needed.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        for source, name in [
            *programs,
            *((BUILD / "lib" / name, f"build/lib/{name}") for name in names),
            *((path, f"build/carried/lib/{name}") for name, path in needed.items()),
        ]:
            stripped = Path(folder) / Path(name).name
            subprocess.run(["strip", "--strip-unneeded", "-o", stripped, source.resolve()], check=True)
            archive.add(stripped, f"djinn/{name}")


def pack(to: Path, is_emulated: bool) -> None:
    """Writes the archive; ``is_emulated``: with the emulated GPU in the place of the real one, to try it where there is none."""
    names = EMULATED if is_emulated else LIBRARIES
    missing = [p for p in (DJINN, *(BUILD / "lib" / name for name in names)) if not p.exists()]
    if missing:
        raise Refused(f"{missing[0]} was not built: make gpu-tree builds it, where nvcc is")

    def clean(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in entry.name else entry

    with tarfile.open(to, "w:xz") as archive:
        add_binaries(archive, names)
        for name in PYTEST:
            found = importlib.util.find_spec(name)
            if found and found.origin:
                archive.add(Path(found.origin).parent, f"djinn/build/carried/site/{name}", filter=clean)
        for source in SOURCES:
            archive.add(ROOT / source, f"djinn/{source}", filter=clean)
    size = to.stat().st_size
    print(f"{to}: {size / 2**20:.1f} MiB; there: tar xf {to.name} && cd djinn && python3 scripts/test-gpu")
    if size > ARCHIVE_BYTES_MAX:
        raise Refused(f"{to} is larger than {ARCHIVE_BYTES_MAX >> 20} MiB")
