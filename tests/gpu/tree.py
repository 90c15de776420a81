"""The tree as it is carried to a GPU's machine, and what both scripts do with it: pack, find the GPU, build the shim, start pools.

The machine needs a driver, the CUDA 13 libraries that its torch brings, g++ and the Python with torch; no network and no Debian packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("DJINN_BUILD", ROOT / "build")).resolve()
DJINN = BUILD / "bin" / "djinn"
CARRIED = BUILD / "carried"  # libraries and pytest, for machines that lack them
WORK = BUILD / "test" / "gpu"
CLIENT = Path(__file__).with_name("client.py")
ARCHIVE_BYTES_MAX = 60 << 20
READY_S = 120.0
SOURCES = ("frontend/include", "frontend/pytorch", "frontend/python", "scripts", "tests/gpu", "tests/gpu_worker/kernels")
LIBRARIES = ("libdjinn.so", "libdjinn_cuda.so", "libdjinn_kernels_cuda.so")
PYTEST = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")
OF_THE_SYSTEM = ("linux-vdso", "libc.so", "libm.so", "libpthread", "libdl", "librt", "ld-linux")


class Refused(Exception):
    """What is missing, in words for a person."""


def environment() -> dict[str, str]:
    paths = [str(CARRIED / "lib"), str(BUILD / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    env = dict(os.environ, LD_LIBRARY_PATH=":".join(p for p in paths if p))
    if not os.environ.get("DJINN_CUDA_PATH"):
        site = Path(torch_folder()).parent if torch_folder() else None
        folders = sorted(str(p) for p in site.glob("nvidia/*/lib")) if site else []
        if folders:
            env["DJINN_CUDA_PATH"] = ":".join(folders)
    return env


def torch_folder() -> str:
    import importlib.util

    found = importlib.util.find_spec("torch")
    return str(Path(found.origin).parent) if found and found.origin else ""


# Packing --------------------------------------------------------------------------------------------------------------


def needed_libraries(binary: Path) -> list[Path]:
    told = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout
    paths = [words[2] for line in told.splitlines() if len(words := line.split()) > 2 and words[1] == "=>"]
    return [Path(p) for p in paths if p.startswith("/") and not any(Path(p).name.startswith(s) for s in OF_THE_SYSTEM)]


def pack(to: Path) -> None:
    """Writes the carried tree: stripped binaries, what they need, pytest, the sources that are compiled or run there."""
    missing = [p for p in (DJINN, *(BUILD / "lib" / name for name in LIBRARIES)) if not p.exists()]
    if missing:
        raise Refused(f"{missing[0]} was not built: make build, and ninja -C build/cmake djinn_kernels_cuda, where nvcc is")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(to, "w:xz") as archive:
        libraries = {p.name: p for name in LIBRARIES for p in needed_libraries(BUILD / "lib" / name)}
        libraries |= {p.name: p for p in needed_libraries(DJINN)}
        libraries.pop("libdjinn.so", None)
        for source, name in [
            (DJINN, "build/bin/djinn"),
            *((BUILD / "lib" / name, f"build/lib/{name}") for name in LIBRARIES),
            *((path, f"build/carried/lib/{name}") for name, path in libraries.items()),
        ]:
            stripped = Path(folder) / Path(name).name
            subprocess.run(["strip", "--strip-unneeded", "-o", stripped, source.resolve()], check=True)
            archive.add(stripped, f"djinn/{name}")
        import importlib.util

        for name in PYTEST:
            found = importlib.util.find_spec(name)
            if found and found.origin:
                whole = Path(found.origin).parent
                archive.add(whole, f"djinn/build/carried/site/{name}", filter=lambda f: None if "__pycache__" in f.name else f)
        for source in SOURCES:
            archive.add(ROOT / source, f"djinn/{source}", filter=lambda f: None if "__pycache__" in f.name else f)
    size = to.stat().st_size
    print(f"{to}: {size / 2**20:.1f} MiB; there: tar xf {to.name} && cd djinn && python3 scripts/test-gpu")
    if size > ARCHIVE_BYTES_MAX:
        raise Refused(f"{to} is larger than {ARCHIVE_BYTES_MAX >> 20} MiB")


# The machine ----------------------------------------------------------------------------------------------------------


def find_gpu(is_emulated: bool) -> str:
    """The GPU's name; what is missing is raised."""
    if not DJINN.exists():
        raise Refused(f"no GPU: {DJINN} was not built")
    if is_emulated:
        os.environ["DJINN_CUDA_MODULE"] = str(BUILD / "lib" / "libdjinn_cuda_emulated.so")
        return "emulated"
    told = subprocess.run([DJINN, "doctor", "--json"], capture_output=True, text=True, env=environment(), timeout=120)
    try:
        answer = json.loads(told.stdout)
    except ValueError:
        raise Refused(f"no GPU: djinn doctor failed: {told.stderr.strip() or told.returncode}") from None
    if not answer["is_gpu_usable"]:
        raise Refused(f"no GPU: {answer['cuda module'] if answer['gpus'] else answer['cuda']}")
    for part in answer["cuda_parts"]:
        print(f"  {part['name']:15} {part['version'] or '-':12} {part['path'] or part['problem']}")
    return answer["gpus"][0]["name"]


def shim() -> Path:
    """The folder to put on PYTHONPATH: the package with a shim for the torch found; compiled when there is none yet."""
    folder = torch_folder()
    if not folder:
        raise Refused("no torch: run this with the Python that has it")
    version = (Path(folder) / "version.py").read_text()
    target = WORK / "python"
    stamp = target / "torch-version"
    if stamp.exists() and stamp.read_text() == version:
        return target
    compiler = shutil.which("g++")
    if compiler is None:
        raise Refused("no C++ compiler: the shim is compiled against the torch found here, so g++ is needed")
    import sysconfig

    shutil.rmtree(target, ignore_errors=True)
    objects = WORK / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "frontend" / "python" / "djinn", target / "djinn")
    includes = [f"-I{ROOT}/frontend/include", f"-I{ROOT}/frontend/pytorch"]
    includes += [
        f"-isystem{p}" for p in (f"{folder}/include", f"{folder}/include/torch/csrc/api/include", sysconfig.get_path("include"))
    ]
    begun = time.monotonic()

    def compile_one(source: Path) -> Path:
        made = objects / f"{source.stem}.o"
        command = [compiler, "-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", *includes, "-c", source, "-o", made]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Refused(f"{source.name} does not compile against this torch:\n{done.stderr[-3000:]}")
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(compile_one, sorted((ROOT / "frontend" / "pytorch").glob("*.cpp"))))
    linked = [f"{folder}/lib/{name}" for name in ("libtorch_python.so", "libtorch_cpu.so", "libc10.so")]
    command = [compiler, "-shared", "-o", target / "djinn" / "_djinn_torch.so", *made, BUILD / "lib" / "libdjinn.so", *linked]
    done = subprocess.run([*command, f"-Wl,-rpath,{BUILD}/lib"], capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"the shim does not link: {done.stderr[-2000:]}")
    stamp.write_text(version)
    print(f"  shim compiled in {time.monotonic() - begun:.0f} s")
    return target


# Pools ----------------------------------------------------------------------------------------------------------------


class Pool:
    """A head and a worker on the GPU, with a state folder of their own."""

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder, self.processes = folder, []
        self.env = environment() | {"PYTHONPATH": str(package), "XDG_STATE_HOME": str(folder), "DJINN_QUIET": "1"}
        self.env.pop("DJINN_TOKEN", None)
        head = self.start("head", "start", "--head", "--listen", "127.0.0.1:0")
        self.env["DJINN_ADDRESS"] = head
        self.worker()

    def worker(self) -> subprocess.Popen:
        self.start(f"worker{len(self.processes)}", "start", "--worker", "--gpus", "0", "--name", f"gpu{len(self.processes)}")
        return self.processes[-1]

    def start(self, name: str, *words: str) -> str:
        log = self.folder / f"{name}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen([DJINN, *words], stdout=subprocess.PIPE, stderr=errors, text=True, env=self.env)
        self.processes.append(process)
        line = process.stdout.readline()
        if "ready at" not in line:
            raise Refused(f"djinn {' '.join(words)} did not start: {log.read_text()[-1500:]}")
        return line.split()[-1]

    def client(self, *words: object) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, CLIENT, "--device", "remote_accelerator", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
        )

    def end(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()


@contextlib.contextmanager
def pool(package: Path) -> Iterator[Pool]:
    WORK.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=WORK))
    made = Pool.__new__(Pool)
    made.processes = []
    try:
        made.__init__(folder, package)
        yield made
    finally:
        made.end()


def answer_of(process: subprocess.Popen, timeout: float) -> dict:
    """The last line of a client; what it said when it failed is raised."""
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
        raise RuntimeError(f"not within {timeout:.0f} s; {errors[-1500:]}") from None
    if process.returncode:
        raise RuntimeError(errors.strip()[-1500:] or f"exit status {process.returncode}")
    return json.loads(out.strip().splitlines()[-1])


def local(device: str, *words: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, CLIENT, "--device", device, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
