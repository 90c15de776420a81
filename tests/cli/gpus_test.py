"""Workers of GPUs, on emulated ones (libdjinn_cuda_emulated.so): a process a GPU, how they begin and end, and what is refused."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from live import DJINN, DONE, NO_DEVICE, READY_S, USAGE, Pool, Process, wait_until

ROOT = Path(__file__).resolve().parents[2]
EMULATED = Path(DJINN).parents[1] / "lib" / "libdjinn_cuda_emulated.so"


@pytest.fixture
def gpus(pool: Pool) -> Pool:
    """A pool whose machine has two GPUs."""
    if not EMULATED.exists():
        pytest.skip(f"{EMULATED} is not built")
    pool.environment |= {"DJINN_CUDA_MODULE": str(EMULATED), "DJINN_EMULATED_GPUS": "2", "DJINN_EMULATED_GIB": "1"}
    return pool


def start(pool: Pool, *words: str) -> Process:
    given = ("start", "--worker", "--head", pool.address, "--memory", "64M", "--name", "crew", *words)
    return pool.start("crew", *given)


def test_every_gpu_gets_a_worker_and_all_end_together(gpus: Pool) -> None:
    gpus.start_head()
    crew = start(gpus, "--gpus", "all")
    wait_until(lambda: sorted(gpus.worker_names()) == ["crew-gpu0", "crew-gpu1"], READY_S, "both join")
    assert crew.terminate() == DONE
    wait_until(lambda: gpus.worker_names() == [], READY_S, "both leave")


def test_workers_of_gpus_end_with_the_command_that_was_killed(gpus: Pool) -> None:
    gpus.start_head()
    crew = start(gpus, "--gpus", "0,1")
    wait_until(lambda: len(gpus.worker_names()) == 2, READY_S, "both join")
    crew.kill()
    wait_until(lambda: gpus.worker_names() == [], READY_S, "both leave")


def test_one_gpu_is_one_worker_of_that_name(gpus: Pool) -> None:
    gpus.start_head()
    crew = start(gpus, "--gpus", "1")
    wait_until(lambda: gpus.worker_names() == ["crew"], READY_S, "it joins")
    assert crew.terminate() == DONE


def test_a_gpu_that_is_not_there_is_named(gpus: Pool) -> None:
    for given in ("2", "0,2"):
        assert "no GPU 2" in gpus.refused(NO_DEVICE, "start", "--worker", "--gpus", given)
    gpus.environment["DJINN_EMULATED_GPUS"] = "0"
    assert "no CUDA driver or GPU" in gpus.refused(NO_DEVICE, "start", "--worker", "--gpus", "all")


def test_several_gpus_take_no_single_address(gpus: Pool) -> None:
    for words in (("--listen", "127.0.0.1:7171"), ("--advertise", "127.0.0.1:7171")):
        assert "several" in gpus.refused(USAGE, "start", "--worker", "--gpus", "0,1", *words)
    assert "56 characters" in gpus.refused(USAGE, "start", "--worker", "--gpus", "0,1", "--name", "n" * 57)


def test_a_module_that_is_none_is_refused_with_the_remedy(pool: Pool) -> None:
    torn = pool.folder / "libdjinn_cuda.so"
    torn.write_text("no library\n")
    pool.environment["DJINN_CUDA_MODULE"] = os.fspath(torn)
    said = pool.refused(NO_DEVICE, "start", "--worker", "--gpus", "0")
    assert os.fspath(torn) in said and "nvcc" in said


SCENARIO = """
name: faults-of-a-gpu
text: a GPU that has no memory once, and then loses everything
program: [{program}, --tokens, "8", --width, "32", --layers, "1", --vocabulary, "64", --prompt, "4"]
workers: 1
worker: [--gpus, "0"]
events:
  - {{after: 3, do: oom, name: serving, count: 1}}
  - {{after: 5, do: device-lost, name: serving}}
"""


def test_faults_on_request_reach_a_worker_on_a_gpu_and_change_no_result(gpus: Pool) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("no transformers: the program of the scenario needs it")
    scenario = gpus.folder / "faults.yaml"
    scenario.write_text(SCENARIO.format(program=os.path.relpath(ROOT / "chaos" / "scenarios" / "generate.py", gpus.folder)))
    done = subprocess.run(
        [DJINN, "chaos", "run", scenario],
        env=os.environ | gpus.environment | {"DJINN_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == DONE and "1 held" in done.stdout, done.stdout + done.stderr
