// C++ because it raises through PyTorch's exception types.
// The Python module `_djinn_torch`: libdjinn's calls for the package djinn, which documents them. Importing it registers the device with PyTorch
// and starts nothing.

#include <Python.h>

#include "interpreter.h"
#include "keep.h"
#include "shim.h"

#include <ATen/Generator.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <torch/csrc/Exceptions.h>

namespace djinn
{

void device_register();

namespace
{

PyObject *fallback_notice = nullptr;

void on_first_fallback(const char *name)
{
    if (!fallback_notice || !Py_IsInitialized())
        return;
    PyGILState_STATE gil = PyGILState_Ensure();
    // A signal or an error that is already on its way must survive the logging.
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *result = PyObject_CallFunction(fallback_notice, "s", name);
    if (result)
        Py_DECREF(result);
    else
        PyErr_WriteUnraisable(fallback_notice);
    PyErr_Restore(type, value, traceback);
    PyGILState_Release(gil);
}

void check(int error, const dj_fault &fault, const char *what)
{
    if (error)
        raise_fault(error, fault, what, /*is_late=*/true);
}

template <typename CALL> void blocking(const char *what, CALL call)
{
    dj_fault fault = {};
    int error;
    {
        without_python_lock unlocked;
        error = call(&fault);
    }
    check(error, fault, what);
}

PyObject *none()
{
    Py_RETURN_NONE;
}

PyObject *text_and_free(char *text)
{
    PyObject *made = PyUnicode_FromString(text);
    dj_free(text);
    return made;
}

// ------------------------------------------------------------------ life

PyObject *start(PyObject *, PyObject *args)
{
    PyObject *factory, *notice;
    if (!PyArg_ParseTuple(args, "OO", &factory, &notice))
        return nullptr;
    fault_start(factory);
    Py_XINCREF(notice);
    fallback_notice = notice;
    fallback_on_first(&on_first_fallback);
    return none();
}

PyObject *init(PyObject *, PyObject *args)
{
    dj_config config = {};
    unsigned long long timeout_ns, replay_limit_ns, recovery_timeout_ns;
    int allows_close, allows_local;
    if (!PyArg_ParseTuple(args, "zzzzzIKzKKpp", &config.address, &config.token, &config.tenant, &config.session, &config.program,
                          &config.embedded_threads, &timeout_ns, &config.recovery, &replay_limit_ns, &recovery_timeout_ns,
                          &allows_close, &allows_local))
        return nullptr;
    HANDLE_TH_ERRORS
    config.timeout_ns = timeout_ns;
    config.replay_limit_ns = replay_limit_ns;
    config.recovery_timeout_ns = recovery_timeout_ns;
    config.allows_close = static_cast<uint32_t>(allows_close);
    config.allows_local = static_cast<uint32_t>(allows_local);
    blocking("init", [&](dj_fault *fault) { return dj_init(&config, fault); });
    forget_default_device();
    return none();
    END_HANDLE_TH_ERRORS
}

PyObject *shutdown(PyObject *, PyObject *args)
{
    int keep;
    if (!PyArg_ParseTuple(args, "p", &keep))
        return nullptr;
    HANDLE_TH_ERRORS
    blocking("shutdown", [&](dj_fault *) { return dj_shutdown(keep); });
    forget_default_device();
    return none();
    END_HANDLE_TH_ERRORS
}

PyObject *is_initialized(PyObject *, PyObject *)
{
    return PyBool_FromLong(dj_is_initialized());
}

PyObject *device_count(PyObject *, PyObject *)
{
    HANDLE_TH_ERRORS
    int count;
    {
        without_python_lock unlocked;
        count = dj_device_count();
    }
    if (count < 0)
        raise_fault(-count, dj_fault{}, "device_count");
    return PyLong_FromLong(count);
    END_HANDLE_TH_ERRORS
}

PyObject *flush(PyObject *, PyObject *)
{
    HANDLE_TH_ERRORS
    blocking("flush", dj_flush);
    return none();
    END_HANDLE_TH_ERRORS
}

PyObject *synchronize(PyObject *, PyObject *)
{
    HANDLE_TH_ERRORS
    blocking("synchronize", dj_synchronize);
    return none();
    END_HANDLE_TH_ERRORS
}

PyObject *capture_begin(PyObject *, PyObject *)
{
    HANDLE_TH_ERRORS
    blocking("capture", dj_capture_begin);
    return none();
    END_HANDLE_TH_ERRORS
}

PyObject *capture_end(PyObject *, PyObject *)
{
    HANDLE_TH_ERRORS
    blocking("capture", dj_capture_end);
    return none();
    END_HANDLE_TH_ERRORS
}

// ------------------------------------------------------------------ looking in

PyObject *graph_json(PyObject *, PyObject *args)
{
    const char *which;
    if (!PyArg_ParseTuple(args, "s", &which))
        return nullptr;
    HANDLE_TH_ERRORS
    char *json = nullptr;
    blocking("get_graph", [&](dj_fault *fault) { return dj_graph_json(which, &json, fault); });
    return text_and_free(json);
    END_HANDLE_TH_ERRORS
}

PyObject *ask(PyObject *, PyObject *args)
{
    const char *verb, *argument;
    if (!PyArg_ParseTuple(args, "sz", &verb, &argument))
        return nullptr;
    HANDLE_TH_ERRORS
    char *json = nullptr;
    blocking(verb, [&](dj_fault *fault) { return dj_ask(verb, argument, &json, fault); });
    return text_and_free(json);
    END_HANDLE_TH_ERRORS
}

bool put(PyObject *dict, const char *key, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    bool is_put = number && PyDict_SetItemString(dict, key, number) == 0;
    Py_XDECREF(number);
    return is_put;
}

PyObject *stats(PyObject *, PyObject *)
{
    struct dj_stats now = {};
    dj_stats(&now);
    PyObject *dict = PyDict_New();
#define PUT(field) put(dict, #field, now.field) &&
    bool is_full = dict && PUT(ops_recorded) PUT(ops_submitted) PUT(ops_dropped) PUT(views_restrided) PUT(executions) PUT(plans)
                               PUT(plans_sent) PUT(reads) PUT(reads_predicted) PUT(round_trips) PUT(bytes_out) PUT(bytes_in)
                                   PUT(leaf_bytes_out) PUT(leaf_bytes_in_reads) PUT(leaves) PUT(leaves_reused) PUT(record_ns)
                                       PUT(flush_ns) PUT(wait_ns) PUT(bind_ns) PUT(execute_ns) PUT(init_ns) PUT(handles_live)
                                           PUT(bytes_unacknowledged) PUT(executions_unacknowledged) PUT(resubmissions)
                                               PUT(links_lost) PUT(recoveries) PUT(replayed) PUT(recovery_ns) PUT(nondeterminism)
                                                   PUT(resumed) true;
#undef PUT
    if (!is_full)
        Py_CLEAR(dict);
    return dict;
}

PyObject *meta_count(PyObject *, PyObject *)
{
    return PyLong_FromUnsignedLongLong(meta_dispatches());
}

PyObject *fallbacks(PyObject *, PyObject *)
{
    PyObject *dict = PyDict_New();
    for (const auto &[name, count] : fallback_counts())
        if (dict && !put(dict, name.c_str(), count))
            Py_CLEAR(dict);
    return dict;
}

PyObject *list_of(const std::vector<std::string> &words)
{
    PyObject *list = PyList_New(0);
    for (const std::string &word : words) {
        PyObject *text = PyUnicode_FromString(word.c_str());
        if (!text || PyList_Append(list, text) != 0)
            Py_CLEAR(list);
        Py_XDECREF(text);
        if (!list)
            break;
    }
    return list;
}

PyObject *problems(PyObject *, PyObject *)
{
    return list_of(lowering_problems());
}
PyObject *lowered(PyObject *, PyObject *)
{
    return list_of(lowered_ops());
}
PyObject *version(PyObject *, PyObject *)
{
    return PyUnicode_FromString(dj_version());
}

PyObject *op_is_native(PyObject *, PyObject *args)
{
    const char *name;
    if (!PyArg_ParseTuple(args, "s", &name))
        return nullptr;
    HANDLE_TH_ERRORS
    const dj_op *op = dj_op_find(name);
    int is_native;
    {
        without_python_lock unlocked;
        is_native = op && dj_op_is_native(op->number);
    }
    return PyBool_FromLong(is_native);
    END_HANDLE_TH_ERRORS
}

// ------------------------------------------------------------------ modules, devices, seeds

PyObject *module_intern(PyObject *, PyObject *args)
{
    const char *path, *type;
    int is_training;
    if (!PyArg_ParseTuple(args, "ssp", &path, &type, &is_training))
        return nullptr;
    return PyLong_FromUnsignedLong(dj_module(path, type, is_training));
}

PyObject *set_module(PyObject *, PyObject *number)
{
    unsigned long asked = PyLong_AsUnsignedLong(number);
    if (asked == static_cast<unsigned long>(-1) && PyErr_Occurred())
        return nullptr;
    return PyLong_FromUnsignedLong(dj_set_module(static_cast<uint32_t>(asked)));
}

PyObject *current_device(PyObject *, PyObject *)
{
    return PyLong_FromLong(device_of_index(-1).index());
}

PyObject *set_device(PyObject *, PyObject *number)
{
    long index = PyLong_AsLong(number);
    if (index == -1 && PyErr_Occurred())
        return nullptr;
    HANDLE_TH_ERRORS
    TORCH_CHECK(index >= 0 && index < 64, "remote_accelerator: device index ", index, " is out of range");
    at::detail::getPrivateUse1Hooks().setCurrentDevice(static_cast<c10::DeviceIndex>(index));
    return none();
    END_HANDLE_TH_ERRORS
}

// The generator's (seed, offset); sets them first when they are given.
PyObject *generator_state(PyObject *, PyObject *args)
{
    int index;
    PyObject *seed = nullptr, *offset = nullptr;
    if (!PyArg_ParseTuple(args, "i|OO", &index, &seed, &offset))
        return nullptr;
    HANDLE_TH_ERRORS
    at::Generator generator = at::detail::getPrivateUse1Hooks().getDefaultGenerator(static_cast<c10::DeviceIndex>(index));
    std::lock_guard<std::mutex> guard(generator.mutex());
    if (seed) {
        generator.set_current_seed(PyLong_AsUnsignedLongLongMask(seed));
        generator.set_offset(offset ? PyLong_AsUnsignedLongLongMask(offset) : 0);
    }
    return Py_BuildValue("KK", static_cast<unsigned long long>(generator.current_seed()),
                         static_cast<unsigned long long>(generator.get_offset()));
    END_HANDLE_TH_ERRORS
}

PyMethodDef methods[] = {
    {"start", start, METH_VARARGS, "start(error_factory, fallback_notice)"},
    {"init", init, METH_VARARGS,
     "init(address, token, tenant, session, program, threads, timeout_ns, recovery, replay_limit_ns, recovery_timeout_ns, allow_close, "
     "allow_local)"},
    {"shutdown", shutdown, METH_VARARGS, "shutdown(keep)"},
    {"is_initialized", is_initialized, METH_NOARGS, nullptr},
    {"device_count", device_count, METH_NOARGS, nullptr},
    {"checkpoint", checkpoint, METH_VARARGS, "checkpoint(tag, tensors)"},
    {"restore", restore, METH_VARARGS, "restore(tag, device index) -> tensors"},
    {"flush", flush, METH_NOARGS, nullptr},
    {"synchronize", synchronize, METH_NOARGS, nullptr},
    {"capture_begin", capture_begin, METH_NOARGS, nullptr},
    {"capture_end", capture_end, METH_NOARGS, nullptr},
    {"graph_json", graph_json, METH_VARARGS, "graph_json(which)"},
    {"ask", ask, METH_VARARGS, "ask(verb, argument)"},
    {"stats", stats, METH_NOARGS, nullptr},
    {"fallbacks", fallbacks, METH_NOARGS, "name -> how often"},
    {"meta_dispatches", meta_count, METH_NOARGS, "meta tensors made while recording"},
    {"problems", problems, METH_NOARGS, nullptr},
    {"lowered", lowered, METH_NOARGS, nullptr},
    {"version", version, METH_NOARGS, nullptr},
    {"op_is_native", op_is_native, METH_VARARGS, "op_is_native(name)"},
    {"module_intern", module_intern, METH_VARARGS, "module_intern(path, type, is_training) -> number"},
    {"set_module", set_module, METH_O, "set_module(number) -> the number before"},
    {"current_device", current_device, METH_NOARGS, nullptr},
    {"set_device", set_device, METH_O, nullptr},
    {"generator_state", generator_state, METH_VARARGS, "generator_state(index[, seed[, offset]]) -> (seed, offset)"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "_djinn_torch",
                          "libdjinn for PyTorch; see the package djinn.",
                          -1,
                          methods,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}    // namespace

}    // namespace djinn

PyMODINIT_FUNC PyInit__djinn_torch()
{
    HANDLE_TH_ERRORS
    djinn::device_register();
    djinn::register_ops();
    return PyModule_Create(&djinn::definition);
    END_HANDLE_TH_ERRORS
}
