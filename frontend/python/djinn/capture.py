"""The explicit forms of capture: a context, a call and the graph that came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils import _pytree as pytree

from . import _djinn_torch as _shim
from .device import NAME

__all__ = ["capture", "execute_model", "get_graph"]


@contextmanager
def capture() -> Iterator[None]:
    """Record what the block does as one graph: within it only reads submit work. :func:`get_graph` returns the graph afterwards."""
    _shim.capture_begin()
    try:
        yield
    finally:
        _shim.capture_end()


def get_graph(which: str = "capture") -> dict[str, Any]:
    """Return a Semantically Rich Graph.

    Parameters
    ----------
    which : {"capture", "last", "pending"}
        The last :func:`capture` block's, the last submitted plan's, or that of what is recorded and not yet submitted.

    Returns
    -------
    dict
        Schema v1 as JSON objects: nodes with op, attributes, inputs, module path and annotations.
    """
    return json.loads(_shim.graph_json(which))


def execute_model(model: torch.nn.Module, inputs: Any, device: str | torch.device = NAME) -> Any:
    """Run a model remotely and return its outputs on the CPU.

    Parameters
    ----------
    model : torch.nn.Module
        Moved to the device if it is not there; as with any ``.to()``, it stays there.
    inputs : tensor, sequence or mapping
        One argument, positional ones or keyword ones; tensors in them are moved.
    device : str or torch.device
        Where to run.

    Returns
    -------
    object
        What the model returns, its tensors on the CPU.
    """
    model = model.to(device)
    moved = pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.to(device), inputs)
    with torch.no_grad():
        if isinstance(moved, torch.Tensor):
            result = model(moved)
        elif isinstance(moved, Mapping):
            result = model(**moved)
        elif isinstance(moved, Sequence):
            result = model(*moved)
        else:
            raise TypeError(f"inputs must be a tensor, a sequence or a mapping, not {type(inputs).__name__}")
    return pytree.tree_map_only(torch.Tensor, lambda tensor: tensor.cpu(), result)
