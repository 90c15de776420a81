"""Where PyTorch's own Python needs telling about the device: its module, printing, saving and loading."""

from __future__ import annotations

from typing import Any

import torch

from . import device as _device
from .device import NAME

_tensor_text = torch._tensor_str._tensor_str


def _print_from_copy(self: torch.Tensor, indent: int) -> str:
    """Print a copy on the CPU: printing runs many small ops, which would each be recorded."""
    return _tensor_text(self.cpu() if self.device.type == NAME else self, indent)


_reduce_untyped = torch.UntypedStorage.__reduce__
_reduce_typed = torch.TypedStorage.__reduce__


def _bytes_of(storage: torch.UntypedStorage) -> bytes:
    return torch.empty(0, dtype=torch.uint8).set_(storage.cpu()).numpy().tobytes()


def _untyped_on(device: str, data: bytes) -> torch.UntypedStorage:
    host = torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage() if data else torch.UntypedStorage(0)
    return host.to(device=torch.device(device))


def _typed_on(device: str, data: bytes, dtype: torch.dtype) -> torch.TypedStorage:
    return torch.TypedStorage(wrap_storage=_untyped_on(device, data), dtype=dtype, _internal=True)


def _pickle_untyped(self: torch.UntypedStorage) -> Any:
    """Pickle by way of the CPU: PyTorch would read the storage by its address."""
    if self.device.type != NAME:
        return _reduce_untyped(self)
    return _untyped_on, (str(self.device), _bytes_of(self))


def _pickle_typed(self: torch.TypedStorage) -> Any:
    untyped = self._untyped_storage
    if untyped.device.type != NAME:
        return _reduce_typed(self)
    return _typed_on, (str(untyped.device), _bytes_of(untyped), self.dtype)


def install() -> None:
    """Register the device's Python side; called once, at import."""
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _device)
    torch.utils.generate_methods_for_privateuse1_backend(
        for_tensor=True, for_module=True, for_packed_sequence=True, for_storage=True
    )
    torch._tensor_str._tensor_str = _print_from_copy
    torch.UntypedStorage.__reduce__ = _pickle_untyped  # type: ignore[method-assign]
    torch.TypedStorage.__reduce__ = _pickle_typed  # type: ignore[method-assign]
