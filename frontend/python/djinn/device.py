"""``torch.remote_accelerator``: the device module that PyTorch looks for beside ``torch.cuda``.

There is one stream a device and everything on it runs in order; streams and events exist so that programs written for CUDA run unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from . import _djinn_torch as _shim

DeviceLike = torch.device | str | int | None

NAME = "remote_accelerator"


def _index(device: DeviceLike) -> int:
    if device is None:
        return _shim.current_device()
    if isinstance(device, int):
        return device
    device = torch.device(device)
    if device.type != NAME:
        raise ValueError(f"Expected a {NAME} device, but got: {device}")
    return _shim.current_device() if device.index is None else device.index


def is_available() -> bool:
    """Whether tensors can be made on the device. Connects to nothing: an unreachable pool shows at first use."""
    return True


def device_count() -> int:
    """Count the devices of the pool; initialises Djinn."""
    return _shim.device_count()


def current_device() -> int:
    """Return the index that ``"remote_accelerator"`` without an index stands for."""
    return _shim.current_device()


def set_device(device: DeviceLike) -> None:
    """Make a device this thread's current one."""
    _shim.set_device(_index(device))


@contextmanager
def device(device: DeviceLike) -> Iterator[None]:
    """Make a device the current one within a ``with`` block."""
    before = _shim.current_device()
    set_device(device)
    try:
        yield
    finally:
        _shim.set_device(before)


def synchronize(device: DeviceLike = None) -> None:
    """Wait until everything recorded so far has run."""
    _shim.synchronize()


def is_initialized() -> bool:
    """Whether this process is connected to a head."""
    return bool(_shim.is_initialized())


def init() -> None:
    """Connect with the defaults, as first use does."""
    from . import init as connect

    connect()


def get_device_name(device: DeviceLike = None) -> str:
    """Name the device as the head knows it."""
    return str(_device_row(device)["name"])


def get_device_properties(device: DeviceLike = None) -> dict[str, Any]:
    """Return what the head knows about the device."""
    return _device_row(device)


def _device_row(device: DeviceLike) -> dict[str, Any]:
    """What the head knows about a device: the device's own entries, and its worker's, in the order of the pool."""
    rows = [{**worker, **row} for worker in json.loads(_shim.ask("status", None))["workers"] for row in worker["devices"]]
    index = _index(device)
    if index >= len(rows):
        raise RuntimeError(f"{NAME}:{index} does not exist: the pool has {len(rows)} devices")
    return rows[index]


# ---------------------------------------------------------------- random numbers


def _is_in_bad_fork() -> bool:
    return False  # a forked child's generators are its own copies, and seeding them touches no connection


def manual_seed(seed: int) -> None:
    """Set the seed of the current device's generator."""
    _shim.generator_state(_shim.current_device(), int(seed) & 0xFFFF_FFFF_FFFF_FFFF)


def manual_seed_all(seed: int) -> None:
    """Set the seed of every device's generator; ``torch.manual_seed`` calls it."""
    for index in range(_DEVICES_MAX):
        _shim.generator_state(index, int(seed) & 0xFFFF_FFFF_FFFF_FFFF)


_DEVICES_MAX = 64


def initial_seed() -> int:
    """Return the seed of the current device's generator."""
    return _shim.generator_state(_shim.current_device())[0]


def seed() -> int:
    """Seed the current device's generator from the operating system's randomness and return the seed."""
    value = torch.Generator().seed()
    manual_seed(value)
    return value


def get_rng_state(device: DeviceLike = NAME) -> torch.Tensor:
    """Return the generator's state: 16 bytes (uint8[16], on the CPU)."""
    state, offset = _shim.generator_state(_index(device))
    return torch.frombuffer(bytearray(state.to_bytes(8, "little") + offset.to_bytes(8, "little")), dtype=torch.uint8).clone()


def set_rng_state(state: torch.Tensor, device: DeviceLike = NAME) -> None:
    """Restore a state that :func:`get_rng_state` returned."""
    data = bytes(state.cpu().numpy())
    if len(data) != 16:
        raise RuntimeError(f"RNG state of {NAME} is 16 bytes long, not {len(data)}")
    _shim.generator_state(_index(device), int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little"))


# ---------------------------------------------------------------- memory


def memory_allocated(device: DeviceLike = None) -> int:
    """Return the bytes in use on the device, as the head last heard; those of other processes' tensors included."""
    return int(_device_row(device)["memory_used_bytes"])


def memory_reserved(device: DeviceLike = None) -> int:
    """Return the bytes that the device's pools hold: the same as in use, workers keep no reserve of their own."""
    return memory_allocated(device)


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """Return (free, total) bytes, as the head last heard."""
    row = _device_row(device)
    total = int(row["capacity_bytes"])
    return max(total - int(row["memory_used_bytes"]), 0), total


def empty_cache() -> None:
    """Do nothing: workers give memory back as they need it."""


# ---------------------------------------------------------------- streams, of which there is one


class Stream:
    """The device's only stream."""

    def __init__(self, device: DeviceLike = None, priority: int = 0) -> None:
        self.device = torch.device(NAME, _index(device))

    def synchronize(self) -> None:
        """Wait until everything recorded so far has run."""
        synchronize(self.device)

    def query(self) -> bool:
        """Whether nothing is left to do; always asks for completion."""
        synchronize(self.device)
        return True

    def wait_stream(self, stream: Stream) -> None:
        """Do nothing: there is one stream."""

    def wait_event(self, event: Event) -> None:
        """Do nothing: there is one stream."""

    def record_event(self, event: Event | None = None) -> Event:
        """Record an event at this point."""
        event = event or Event()
        event.record(self)
        return event

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


class Event:
    """A point in the stream. Times are this process's clock at the moment that the work before the point was known to be done."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self._time_ns: int | None = None
        self._enable_timing = enable_timing

    def record(self, stream: Stream | None = None) -> None:
        """Mark this point; with timing, waits for what was recorded before."""
        import time

        if self._enable_timing:
            _shim.synchronize()
        self._time_ns = time.perf_counter_ns()

    def wait(self, stream: Stream | None = None) -> None:
        """Do nothing: there is one stream."""

    def query(self) -> bool:
        """Whether the work before the point is done."""
        _shim.synchronize()
        return True

    def synchronize(self) -> None:
        """Wait for the work before the point."""
        _shim.synchronize()

    def elapsed_time(self, end: Event) -> float:
        """Return milliseconds from this event to another."""
        if self._time_ns is None or end._time_ns is None:
            raise RuntimeError("Both events must be recorded before calculating elapsed time.")
        return (end._time_ns - self._time_ns) / 1e6


def current_stream(device: DeviceLike = None) -> Stream:
    """Return the device's stream."""
    return Stream(device)


def default_stream(device: DeviceLike = None) -> Stream:
    """Return the device's stream."""
    return Stream(device)


@contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    """Select a stream: there is one."""
    yield


def get_amp_supported_dtype() -> list[torch.dtype]:
    """Return the dtypes that autocast may choose."""
    return [torch.bfloat16, torch.float16]
