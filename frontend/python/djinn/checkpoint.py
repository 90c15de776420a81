"""Named checkpoints: tensors, and what holds them, kept by the head under a tag of the tenant.

The values are written by the workers that have them. What holds them (dictionaries, lists, numbers) is kept as JSON in one more tensor, the first.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from . import _djinn_torch as _shim
from .device import DeviceLike, _index

__all__ = ["checkpoint", "restore"]

_DEVICE = "remote_accelerator"


def _describe(value: Any, tensors: list[torch.Tensor]) -> Any:
    """What `value` is, as JSON; its tensors are appended to `tensors` and named by their numbers."""
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        tensors.append(value.detach().to(_DEVICE))
        return {"tensor": len(tensors) - 1, "local": value.device.type != _DEVICE}
    if isinstance(value, dict):
        keys = [key for key in value if not isinstance(key, (str, int))]
        if keys:
            raise TypeError(f"checkpoint: keys of dictionaries are strings or integers, not {type(keys[0]).__name__}")
        return {"dict": [[key, _describe(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [_describe(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"value": value}
    raise TypeError(
        f"checkpoint: {type(value).__name__} cannot be kept; give tensors, modules, dictionaries, lists or plain values"
    )


def _rebuild(said: Any, tensors: list[torch.Tensor]) -> Any:
    kind, content = next(iter(said.items()))
    if kind == "tensor":
        return tensors[content].cpu() if said["local"] else tensors[content]
    if kind == "dict":
        return {key: _rebuild(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_rebuild(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    return content


def checkpoint(tag: str, tensors: Any) -> None:
    """Keep values with the head under a name, so that any program of the tenant can restore them; waits until they are durable.

    Parameters
    ----------
    tag : str
        The name, at most 119 bytes. What was kept under it before is replaced.
    tensors : Tensor, Module, dict, list or tuple
        Tensors on any device, dictionaries and lists of them (and of plain numbers, strings, None), as deep as you like; of a module its
        ``state_dict()``. At most 8191 tensors.

    Raises
    ------
    DjinnError
        When a value is lost for good, or the head's disk is full.
    TypeError
        When something else than these is in it.
    """
    found: list[torch.Tensor] = []
    with torch.no_grad():
        said = json.dumps(_describe(tensors, found)).encode()
        header = torch.frombuffer(bytearray(said), dtype=torch.uint8).to(_DEVICE)
        _shim.checkpoint(tag, [header, *found])


def restore(tag: str, device: DeviceLike = None) -> Any:
    """Return what was kept under a name, in the same structure; its bytes stay with the head until a worker needs them.

    Parameters
    ----------
    tag : str
        The name given to :func:`checkpoint`.
    device : torch.device, optional
        Where tensors that were on a remote device go; default: the current one. Others come back on the CPU.

    Returns
    -------
    Tensor, dict, list or tuple
        As it was kept; of a module its ``state_dict()``.

    Raises
    ------
    DjinnError
        ``NOT_FOUND`` when nothing is kept under the name.
    """
    header, *tensors = _shim.restore(tag, _index(device))
    return _rebuild(json.loads(bytes(header.cpu().numpy())), tensors)
