"""What can go wrong, as the exceptions that PyTorch users expect.

Every error of libdjinn becomes a :class:`DjinnError`, which is a ``RuntimeError``; an index out of range is an ``IndexError`` too, and no memory
on the device a ``torch.OutOfMemoryError`` too, so that programs written for other devices catch what they always caught.
"""

from __future__ import annotations

import torch

__all__ = ["DjinnError", "DjinnIndexError", "DeviceMemoryError", "LostError", "UnreachableError"]


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


class UnreachableError(DjinnError):
    """No head or no worker can be reached."""


_CLASSES: dict[str, type[DjinnError]] = {
    "INDEX": DjinnIndexError,
    "DEVICE_MEMORY": DeviceMemoryError,
    "HANDLE_LOST": LostError,
    "EPOCH_FENCED": LostError,
    "WORKER_LOST": LostError,
    "NO_HEAD": UnreachableError,
    "NO_WORKER": UnreachableError,
    "ADDRESS": UnreachableError,
}


# Errors that PyTorch itself would have raised at this very line: the traceback already says where.
_IMMEDIATE = frozenset({"SHAPE", "DTYPE", "RANK", "INDEX", "OVERFLOW"})


def make_error(number: int, code: str, text: str, op: str, site: int, where: str) -> DjinnError:
    """Make the exception for an error number; called by the shim."""
    if where and code not in _IMMEDIATE and where not in text:
        text = f"{text} (recorded at {where})"
    error = _CLASSES.get(code, DjinnError)(text)
    error.number, error.code, error.op, error.site = number, code, op, where
    # The recorder names the module in its text as "in <path>"; there is no other channel for it.
    _, separator, tail = text.partition(" in module ")
    error.module = tail.split()[0].rstrip(".,:;)") if separator and tail else ""
    return error
