"""The tree on a GPU's machine: its environment, the GPU, and the shim, compiled against the torch found there.

The machine needs a driver, the CUDA 13 libraries that its torch brings, g++ and the Python with torch; no network and no Debian packages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("DJINN_BUILD", ROOT / "build")).resolve()
DJINN = BUILD / "bin" / "djinn"
CARRIED = BUILD / "carried"  # libraries and pytest, for machines that lack them
WORK = BUILD / "test" / "gpu"
COMPILE_S = 300.0
DOCTOR_S = 60.0
WORKER_BYTES_MAX = 32 << 30


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


# The machine ----------------------------------------------------------------------------------------------------------


def said_by(*command: object, timeout: float = 20.0, env: dict[str, str] | None = None) -> str:
    """What a command prints; why it could not, when it could not."""
    try:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=timeout, env=env or environment())
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    return (done.stdout + done.stderr).strip()


def doctor() -> dict:
    try:
        done = subprocess.run([DJINN, "doctor", "--json"], capture_output=True, text=True, env=environment(), timeout=DOCTOR_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"no GPU: djinn doctor failed: {error}") from None
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise Refused(f"no GPU: djinn doctor failed: {done.stderr.strip()[-1500:] or done.returncode}") from None


def machine() -> dict:
    """What a reader of the results wants to know of it."""
    processor = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    version = Path(torch_folder()) / "version.py"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "processor": processor[0].split(":")[1].strip() if processor else "unknown",
        "cores": os.cpu_count(),
        "kernel": os.uname().release,
        "python": sys.version,
        "torch": version.read_text() if version.exists() else "",
        "compiler": said_by("g++", "--version").split("\n")[0],
        "nvidia-smi": said_by(
            "nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit", "--format=csv"
        ),
    }


def find_gpu(is_emulated: bool) -> dict:
    """The first GPU as djinn doctor describes it; what is missing is raised."""
    if not DJINN.exists():
        raise Refused(f"no GPU: {DJINN} was not built")
    if is_emulated:
        os.environ["DJINN_CUDA_MODULE"] = str(BUILD / "lib" / "libdjinn_cuda_emulated.so")
        return {"name": "emulated", "memory_bytes": 2 << 30, "parts": []}
    answer = doctor()
    if not answer["is_gpu_usable"]:
        raise Refused(f"no GPU: {answer['cuda module'] if answer['gpus'] else answer['cuda']}")
    for part in answer["cuda_parts"]:
        print(f"  {part['name']:15} {part['version'] or '-':12} {part['path'] or part['problem']}")
    return answer["gpus"][0] | {"parts": answer["cuda_parts"]}


def is_emulated() -> bool:
    return "emulated" in os.environ.get("DJINN_CUDA_MODULE", "")


def worker_memory(gpu: dict) -> int:
    """Bytes for a worker that leaves room for torch on the same GPU."""
    return min(WORKER_BYTES_MAX, int(gpu.get("memory_bytes", 0) * 0.45)) & ~((2 << 20) - 1)


# The shim -------------------------------------------------------------------------------------------------------------


def shim_sources() -> list[Path]:
    return sorted((ROOT / "frontend" / "pytorch").glob("*.cpp"))


def shim_stamp(folder: str) -> str:
    """What the shim was made of: this Python, this torch, these sources."""
    digest = hashlib.sha256(sys.version.encode() + (Path(folder) / "version.py").read_bytes())
    for path in [
        *shim_sources(),
        *sorted((ROOT / "frontend").rglob("*.h")),
        *sorted((ROOT / "frontend" / "python").rglob("*.py")),
    ]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def compile_objects(compiler: str, folder: str, to: Path) -> list[Path]:
    includes = [f"-I{ROOT}/frontend/include", f"-I{ROOT}/frontend/pytorch"]
    headers = (f"{folder}/include", f"{folder}/include/torch/csrc/api/include", sysconfig.get_path("include"))
    includes += [f"-isystem{path}" for path in headers]

    def compile_one(source: Path) -> Path:
        made = to / f"{source.stem}.o"
        command = [compiler, "-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", *includes, "-c", source, "-o", made]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_S)
        if done.returncode:
            raise Refused(f"{source.name} does not compile against this torch:\n{done.stderr[:3000]}")
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, shim_sources()))


def built_package() -> Path | None:
    """The package that the build made, if it was for this Python: the configuration's, else that of build/venv (cmake/djinn.cmake)."""
    cache, made = BUILD / "cmake" / "CMakeCache.txt", BUILD / "python"
    if not cache.exists() or not (made / "djinn" / "_djinn_torch.so").exists():
        return None
    named = [line.partition("=")[2] for line in cache.read_text().splitlines() if line.startswith("DJINN_PYTHON:")]
    return made if sys.executable == ("".join(named) or str(ROOT / "build" / "venv" / "bin" / "python")) else None


def shim() -> Path:
    """The folder to put on PYTHONPATH: the package with a shim for the torch found; compiled when there is none yet."""
    folder = torch_folder()
    if not folder:
        raise Refused("no torch: run this with the Python that has it")
    built = built_package()
    if built is not None:
        return built
    target, stamp = WORK / "python", shim_stamp(folder)
    told = target / "made-of"
    if told.exists() and told.read_text() == stamp:
        return target
    compiler = shutil.which("g++")
    if compiler is None:
        raise Refused("no C++ compiler: the shim is compiled against the torch found here, so g++ is needed")
    python_h = Path(sysconfig.get_path("include")) / "Python.h"
    if not python_h.exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Refused(f"no {python_h}: the shim is compiled here, so Python's headers (python{version}-dev) are needed")
    shutil.rmtree(target, ignore_errors=True)
    objects = WORK / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "frontend" / "python" / "djinn", target / "djinn")
    begun = time.monotonic()
    made = compile_objects(compiler, folder, objects)
    linked = [f"{folder}/lib/{name}" for name in ("libtorch_python.so", "libtorch_cpu.so", "libc10.so")]
    command = [compiler, "-shared", "-o", target / "djinn" / "_djinn_torch.so", *made, BUILD / "lib" / "libdjinn.so", *linked]
    done = subprocess.run([*command, f"-Wl,-rpath,{BUILD}/lib"], capture_output=True, text=True, timeout=COMPILE_S)
    if done.returncode:
        raise Refused(f"the shim does not link: {done.stderr[-2000:]}")
    told.write_text(stamp)
    print(f"  shim compiled in {time.monotonic() - begun:.0f} s", flush=True)
    return target
