"""What Djinn adds to ``torch.nn.Module``: the module path of everything recorded, and tied weights that stay tied under ``.to()``.

Paths: the outermost module that is called is the root; a module below it is named by its path from the root, as in
``named_modules()``, after the root's class: ``GPT2LMHeadModel.transformer.h.0.attn``. A call costs one dictionary look-up and two C calls.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch

from . import _djinn_torch as _shim
from .device import NAME

_intern = _shim.module_intern
_set_module = _shim.set_module

# id(module) -> (evaluation's number, training's number); the weak references clear entries, so that ids can be reused.
_numbers: dict[int, tuple[int, int]] = {}
_owners: dict[int, weakref.ref[torch.nn.Module]] = {}
_current = threading.local()

_REMEMBERED_MAX = 1 << 20  # modules; beyond it new ones go unnamed


def _forget(key: int) -> None:
    _numbers.pop(key, None)
    _owners.pop(key, None)


def _remember(module: torch.nn.Module, path: str) -> None:
    key = id(module)
    if len(_numbers) >= _REMEMBERED_MAX:
        return
    kind = type(module).__name__
    _numbers[key] = (_intern(path, kind, False), _intern(path, kind, True))
    _owners[key] = weakref.ref(module, lambda _, key=key: _forget(key))


def _name_tree(root: torch.nn.Module, path: str) -> None:
    for name, module in root.named_modules():
        _remember(module, f"{path}.{name}" if name else path)


def _name(module: torch.nn.Module) -> tuple[int, int]:
    root: torch.nn.Module | None = getattr(_current, "root", None)
    if root is None:
        _name_tree(module, type(module).__name__)
    else:
        # A module that the root did not have when it was named: a child added since, or one held outside the tree.
        for name, child in root.named_modules():
            if child is module:
                _remember(module, f"{type(root).__name__}.{name}")
                break
        else:
            _name_tree(module, type(module).__name__)
    return _numbers.get(id(module), (0, 0))


def _called(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    pair = _numbers.get(id(self))
    if pair is None:
        pair = _name(self)
    before = _set_module(pair[self.training])
    if before:
        try:
            return self._wrapped_call_impl(*args, **kwargs)
        finally:
            _set_module(before)
    _current.root = self
    try:
        return self._wrapped_call_impl(*args, **kwargs)
    finally:
        _current.root = None
        _set_module(0)


def path_of(number: int) -> str:
    """Return the path of a module number, for tests."""
    for key, pair in _numbers.items():
        if number in pair:
            owner = _owners[key]()
            return type(owner).__name__ if owner is not None else ""
    return ""


# ---------------------------------------------------------------- .to()

_apply: Callable[..., torch.nn.Module] = torch.nn.Module._apply
_moving = threading.local()


def _apply_tied(module: torch.nn.Module, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> torch.nn.Module:
    """``Module._apply`` under which a parameter that several modules hold is moved once and stays one parameter.

    PyTorch makes a new ``Parameter`` for each module that holds it when the devices have no compatible shallow copy, as here and
    the CPU have none.
    """
    memo: dict[int, tuple[torch.Tensor, torch.Tensor]] | None = getattr(_moving, "memo", None)
    if memo is not None:
        return _apply(module, fn, recurse)
    _moving.memo = {}
    try:
        before = _slots(module) if recurse else []
        result = _apply(module, fn, recurse)
        _retie(before)
        return result
    finally:
        _moving.memo = None


Slot = tuple[torch.nn.Module, str, torch.nn.Parameter]


def _slots(root: torch.nn.Module) -> list[list[Slot]]:
    """The parameters below ``root`` that more than one place holds, with their places."""
    places: dict[int, list[Slot]] = {}
    for module in root.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module, name, parameter))
    return [group for group in places.values() if len(group) > 1]


def _retie(groups: list[list[Slot]]) -> None:
    for group in groups:
        module, name, old = group[0]
        new = module._parameters[name]
        if new is None or new is old or NAME not in (new.device.type, old.device.type):
            continue
        for other, other_name, _ in group[1:]:
            other._parameters[other_name] = new


def install() -> None:
    """Replace ``Module.__call__`` and ``Module._apply``; called once, at import."""
    torch.nn.Module.__call__ = _called  # type: ignore[method-assign]
    torch.nn.Module._apply = _apply_tied  # type: ignore[method-assign, assignment]
