// C++ because it serves the shim. What only the files that know Python share.

#pragma once

#include <Python.h>

#include <string>

namespace djinn {

// `factory(code, name, text, op, site, where)` makes the exception object for an error. Called once, at import.
void fault_start(PyObject *factory);
// "file:line" of a site, "" when unknown. Needs Python's lock.
std::string site_text(uint32_t site);

} // namespace djinn
