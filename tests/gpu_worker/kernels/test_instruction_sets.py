"""The same tests on lesser instruction sets than this processor has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_library import LIB


@pytest.mark.skipif("DJINN_CPU_ISA" in os.environ, reason="this is that run")
@pytest.mark.parametrize("instructions", ["base", "avx2"])
def test_lesser_instruction_sets_pass_the_same_tests(instructions):
    if LIB.harness_numerics().decode().split()[1] == instructions:
        pytest.skip("this processor has no better one")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(Path(__file__).parent)]
    run = subprocess.run(command, env={**os.environ, "DJINN_CPU_ISA": instructions}, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-4000:]
