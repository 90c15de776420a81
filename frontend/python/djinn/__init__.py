"""Djinn: PyTorch programs on remote accelerators.

Importing it registers the device ``remote_accelerator`` and starts nothing: no thread, no socket, no process. The first use of a tensor there
connects to ``$DJINN_ADDRESS``, or starts an embedded head and worker as one child process.

>>> import torch, djinn
>>> djinn.init("127.0.0.1:7400")
>>> model = torch.nn.Linear(8, 8).to("remote_accelerator")
>>> model(torch.ones(1, 8, device="remote_accelerator")).cpu()
"""

from __future__ import annotations

import json
import logging
from typing import Any

import torch

from . import _djinn_torch as _shim
from . import device as _device
from . import modules as _modules
from . import patches as _patches
from .capture import capture, execute_model, get_graph
from .errors import DeviceMemoryError, DjinnError, DjinnIndexError, LostError, UnreachableError, make_error

__all__ = [
    "DeviceMemoryError",
    "DjinnError",
    "DjinnIndexError",
    "LostError",
    "UnreachableError",
    "capture",
    "device",
    "devices",
    "execute_model",
    "get_graph",
    "init",
    "is_initialized",
    "plan",
    "plans",
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
) -> None:
    """Connect to a head, or start an embedded one. First use does it with the defaults.

    Parameters
    ----------
    address : str, optional
        The head's ``"host:port"``. Default: ``$DJINN_ADDRESS``; without that, a head and a worker start as one child of this process, with
        temporary state, and die with it.
    token : str, optional
        32 hex digits. Default: ``$DJINN_TOKEN``, else the token file in this user's state folder.
    tenant, session : str, optional
        Whom the work is counted for, and a name for this conversation.
    program : str, optional
        The ``djinn`` executable for the embedded child. Default: beside libdjinn, then on ``$PATH``.
    threads : int
        Threads of the embedded worker; 0: as many as the machine has cores.
    timeout : float
        Seconds allowed for connecting.

    Raises
    ------
    UnreachableError
        When nothing answers at the address in time, or no child could be started; the message says what to do.
    DjinnError
        When already connected to another address, or the token does not match.
    """
    _shim.init(address, token, tenant, session, program, threads, int(timeout * 1e9))


def shutdown() -> None:
    """End the session: what was submitted finishes, handles are released, an embedded child stops. Takes at most 5 s."""
    _shim.shutdown()


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


_shim.start(make_error, _on_first_fallback)
_patches.install()
_modules.install()
for _problem in _shim.problems():
    _log.error("the op table's row does not fit PyTorch's schema, so the op runs on this process's CPU: %s", _problem)
