"""What can go wrong, as the exceptions that PyTorch users expect.

Every error of libdjinn becomes a :class:`DjinnError`, which is a ``RuntimeError``; an index out of range is an ``IndexError`` too, and no memory
on the device a ``torch.OutOfMemoryError`` too, so that programs written for other devices catch what they always caught.
"""

from __future__ import annotations

import re

import torch

__all__ = [
    "DeviceMemoryError",
    "DjinnError",
    "DjinnIndexError",
    "LineageError",
    "LostError",
    "QuarantinedError",
    "UnreachableError",
]


class DjinnError(RuntimeError):
    """An error of Djinn.

    Attributes
    ----------
    code : str
        Its name in the table of errors, e.g. ``"SHAPE"`` (see docs/errors.md).
    number : int
        Its number there.
    op : str
        The op that failed, or what was tried.
    module : str
        Path of the module that recorded the op; empty outside every module.
    site : str
        ``"file:line"`` of the Python line that recorded the op; empty when unknown.
    """

    code = ""
    number = 0
    op = ""
    module = ""
    site = ""


class DjinnIndexError(DjinnError, IndexError):
    """An index or a dimension is out of range."""


class DeviceMemoryError(DjinnError, torch.OutOfMemoryError):  # type: ignore[misc]
    """The device has not enough free memory."""


class LostError(DjinnError):
    """A value, or the worker that held it, is gone."""


class LineageError(LostError):
    """A lost value cannot be brought back; the message names it, the ancestor that is missing, and why."""


class QuarantinedError(DjinnError):
    """The work was on the device in two deaths of its worker, and is not tried again. Everything else goes on."""


class UnreachableError(DjinnError):
    """No head or no worker can be reached."""


_CLASSES: dict[str, type[DjinnError]] = {
    "INDEX": DjinnIndexError,
    "DEVICE_MEMORY": DeviceMemoryError,
    "HANDLE_LOST": LostError,
    "EPOCH_FENCED": LostError,
    "WORKER_LOST": LostError,
    "LINEAGE": LineageError,
    "QUARANTINED": QuarantinedError,
    "NO_HEAD": UnreachableError,
    "NO_WORKER": UnreachableError,
    "ADDRESS": UnreachableError,
}


# How the recorder's text ends when a recorded op failed.
_NAMED = re.compile(r"\(op (\w+)(?: in ([^\s)]+))?\)")


def make_error(number: int, code: str, text: str, op: str, site: int, where: str) -> DjinnError:
    """Make the exception for an error number; called by the shim. ``where`` is empty for errors raised at the line that made them."""
    if where and where not in text:
        text = f"{text} (recorded at {where})"
    error = _CLASSES.get(code, DjinnError)(text)
    error.number, error.code, error.op, error.site = number, code, op, where
    named = _NAMED.search(text)
    if named:
        error.op, error.module = named.group(1), named.group(2) or ""
    return error
