// C++ as the rest of the shim. Methods of `_djinn_torch` that keep.cpp has.

#pragma once

#include <Python.h>

namespace djinn {

PyObject *checkpoint(PyObject *, PyObject *args);    // checkpoint(tag, tensors)
PyObject *restore(PyObject *, PyObject *args);       // restore(tag, device index) -> tensors

} // namespace djinn
