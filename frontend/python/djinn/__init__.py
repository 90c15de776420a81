"""Djinn: PyTorch programs on remote accelerators.

Importing it registers the device ``remote_accelerator`` and starts nothing: no thread, no socket, no process. The first use of a tensor there
connects to ``$DJINN_ADDRESS``, or starts an embedded head and worker as one child process.

>>> import torch, djinn
>>> djinn.init("127.0.0.1:7400")
>>> model = torch.nn.Linear(8, 8).to("remote_accelerator")
>>> model(torch.ones(1, 8, device="remote_accelerator")).cpu()
"""

from __future__ import annotations

import atexit
import json
import logging
import sys
from typing import Any

import torch

from . import _djinn_torch as _shim
from . import device as _device
from . import modules as _modules
from . import patches as _patches
from .capture import capture, execute_model, get_graph
from .checkpoint import checkpoint, restore
from .errors import (
    DeviceMemoryError,
    DjinnError,
    DjinnIndexError,
    LineageError,
    LostError,
    QuarantinedError,
    UnreachableError,
    make_error,
)

__all__ = [
    "DeviceMemoryError",
    "DjinnError",
    "DjinnIndexError",
    "LineageError",
    "LostError",
    "QuarantinedError",
    "UnreachableError",
    "capture",
    "checkpoint",
    "device",
    "devices",
    "execute_model",
    "get_graph",
    "init",
    "is_initialized",
    "plan",
    "plans",
    "restore",
    "shutdown",
    "stats",
    "status",
    "synchronize",
]

__version__: str = _shim.version()

_log = logging.getLogger("djinn")

device = torch.device


def _on_first_fallback(name: str) -> None:
    _log.warning("%s has no native kernel: it runs on this process's CPU (counted in djinn.stats())", name)


def init(
    address: str | None = None,
    *,
    token: str | None = None,
    tenant: str | None = None,
    session: str | None = None,
    program: str | None = None,
    threads: int = 0,
    timeout: float = 10.0,
    recovery: str | None = None,
    replay_limit: float = 1.0,
    recovery_timeout: float = 600.0,
    allow_close: bool = False,
    allow_local: bool = False,
) -> None:
    """Connect to a head, or start an embedded one. First use does it with the defaults.

    Parameters
    ----------
    address : str, optional
        The head's ``"host:port"``. Default: ``$DJINN_ADDRESS``; without that, a head and a worker start as one child of this process, with
        temporary state, and die with it.
    token : str, optional
        32 hex digits. Default: ``$DJINN_TOKEN``, else the token file in this user's state folder.
    tenant : str, optional
        Whom the work is counted for.
    session : str, optional
        A name for this conversation. If one of that name did not end well, this program continues it: what it submits as before is
        answered from records, until it passes the point where the other one ended.
    program : str, optional
        The ``djinn`` executable for the embedded child. Default: beside libdjinn, then on ``$PATH``.
    threads : int
        Threads of the embedded worker; 0: as many as the machine has cores.
    timeout : float
        Seconds allowed for connecting.
    recovery : {"checkpoint", "replicate", "recompute"}, optional
        How values on workers are protected: made durable with the head (the default), copied to another worker, or not at all: they are
        computed again from the start.
    replay_limit : float
        Seconds that it may take to compute again what a value was made by, before it is made safe.
    recovery_timeout : float
        Seconds that the program pauses for a lost worker or head at most; then it gets an error.
    allow_close : bool
        Whether lost values may be computed again by another kind of worker: close to what they were, but not bit for bit.
    allow_local : bool
        Whether a worker is started on this machine when the pool has had none for 5 s. It ends with this process.

    Raises
    ------
    UnreachableError
        When nothing answers at the address in time, or no child could be started; the message says what to do.
    DjinnError
        When already connected to another address, or the token does not match.
    """
    _shim.init(
        address,
        token,
        tenant,
        session,
        program,
        threads,
        int(timeout * 1e9),
        recovery,
        int(replay_limit * 1e9),
        int(recovery_timeout * 1e9),
        allow_close,
        allow_local,
    )


def shutdown(*, keep: bool = False) -> None:
    """End the session: what was submitted finishes, handles are released, an embedded child stops. Takes at most 5 s.

    Parameters
    ----------
    keep : bool
        Whether a session with a name can be resumed afterwards; else it is forgotten.
    """
    _shim.shutdown(keep)


def is_initialized() -> bool:
    """Whether this process is connected."""
    return bool(_shim.is_initialized())


def synchronize() -> None:
    """Wait until everything recorded so far has run."""
    _shim.synchronize()


def devices() -> list[torch.device]:
    """Return the devices of the pool; initialises."""
    return [torch.device(_device.NAME, index) for index in range(_shim.device_count())]


def stats() -> dict[str, Any]:
    """Return the counters of this process.

    Returns
    -------
    dict
        The fields of ``struct dj_stats`` (djinn.h; times in nanoseconds), and ``fallback_ops``: a dictionary of how often which op ran on
        this process's CPU for want of a native kernel, with their sum in ``fallbacks``; ``meta_dispatches``: how often PyTorch's Meta kernels
        were asked for a shape while recording (0: shapes come from the op table).
    """
    counters: dict[str, Any] = _shim.stats()
    counters["fallback_ops"] = _shim.fallbacks()
    counters["fallbacks"] = sum(counters["fallback_ops"].values())
    counters["meta_dispatches"] = _shim.meta_dispatches()
    return counters


def status() -> dict[str, Any]:
    """Return what the head says about the cluster: what ``djinn status --json`` prints."""
    return json.loads(_shim.ask("status", None))


def plans() -> Any:
    """Return the plans that the head knows."""
    return json.loads(_shim.ask("plans", None))


def plan(identifier: str) -> dict[str, Any]:
    """Return one plan with its annotations and placement."""
    return json.loads(_shim.ask("plan", identifier))


def _at_exit() -> None:
    """A clean end of the program forgets its session; after an exception that nobody caught it can be resumed by its name."""
    if _shim.is_initialized():
        _shim.shutdown(getattr(sys, "last_value", None) is not None)


_shim.start(make_error, _on_first_fallback)
atexit.register(_at_exit)
_patches.install()
_modules.install()
for _problem in _shim.problems():
    _log.error("the op table's row does not fit PyTorch's schema, so the op runs on this process's CPU: %s", _problem)
