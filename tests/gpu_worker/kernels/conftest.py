"""For every test here: the library must be there, PyTorch stays on one thread, and the seed is fixed."""

from __future__ import annotations

import pytest
import torch
from kernel_library import LIB

torch.set_num_threads(1)  # its idle threads spin, and ours are what is tested here


@pytest.fixture(autouse=True)
def _seed():
    assert LIB is not None, "libdjinn_kernels_test.so is not built: make build"
    torch.manual_seed(20)
