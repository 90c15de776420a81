// C++ because it raises through PyTorch's exception types.
// Errors, the interpreter's lock and where in the program we are. Errors become Python exceptions made by djinn/errors.py, which gets the
// number, the text, the op and the "file:line" that recorded the op that failed.
//
// Sites: each (code object, instruction) that records ops gets a number, found without Python's lock: a thread's own
// running frame cannot change while it is inside a call. About 60 ns in the common case (a small direct-mapped cache per thread).

#include <Python.h>

#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030D0000
#define Py_BUILD_CORE 1
#include <internal/pycore_frame.h>
#undef Py_BUILD_CORE
#define DJINN_HAS_FRAMES 1
#endif

#include "interpreter.h"
#include "shim.h"

#include <mutex>
#include <unordered_map>

#include <c10/util/Exception.h>
#include <torch/csrc/Exceptions.h>

namespace djinn
{

namespace
{

constexpr uint32_t SITES_MAX = 1 << 16;    // beyond it errors name no line; code objects of known sites stay alive
constexpr size_t CACHE_SLOTS = 256;

struct site {
    PyCodeObject *code;
    int instruction;
};
struct site_key {
    PyCodeObject *code;
    int instruction;
    bool operator==(const site_key &other) const
    {
        return code == other.code && instruction == other.instruction;
    }
};
struct site_hash {
    size_t operator()(const site_key &key) const
    {
        return reinterpret_cast<size_t>(key.code) / 64 * 31 + static_cast<size_t>(key.instruction);
    }
};

std::mutex sites_lock;
std::vector<site> sites(1);
std::unordered_map<site_key, uint32_t, site_hash> site_numbers;

PyObject *error_factory = nullptr;
// What a signal handler raised while this thread waited.
thread_local PyObject *interrupt_type = nullptr, *interrupt_value = nullptr, *interrupt_traceback = nullptr;

#ifdef DJINN_HAS_FRAMES
uint32_t site_intern(PyCodeObject *code, int instruction)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    uint32_t number = 0;
    {
        std::lock_guard<std::mutex> guard(sites_lock);
        auto found = site_numbers.find({code, instruction});
        if (found != site_numbers.end()) {
            number = found->second;
        } else if (sites.size() < SITES_MAX) {
            Py_INCREF(code);
            number = static_cast<uint32_t>(sites.size());
            sites.push_back({code, instruction});
            site_numbers.emplace(site_key{code, instruction}, number);
        }
    }
    PyGILState_Release(gil);
    return number;
}
#endif

int on_wait(void *)
{
    if (!Py_IsInitialized())
        return 0;
    PyGILState_STATE gil = PyGILState_Ensure();
    int interrupted = PyErr_CheckSignals();
    if (interrupted)
        PyErr_Fetch(&interrupt_type, &interrupt_value, &interrupt_traceback);
    PyGILState_Release(gil);
    return interrupted;
}

}    // namespace

void note_site()
{
#ifdef DJINN_HAS_FRAMES
    struct slot {
        PyCodeObject *code;
        int instruction;
        uint32_t number;
    };
    static thread_local slot cache[CACHE_SLOTS];
    static thread_local uint32_t last = 0;
    PyThreadState *thread = PyGILState_GetThisThreadState();
    uint32_t number = 0;
    _PyInterpreterFrame *frame = thread && thread->cframe ? thread->cframe->current_frame : nullptr;
#if PY_VERSION_HEX >= 0x030C0000
    if (frame && frame->owner == FRAME_OWNED_BY_CSTACK)
        frame = nullptr;    // the interpreter's own, without code of a program
#endif
    if (frame) {
        PyCodeObject *code = frame->f_code;
        int instruction = _PyInterpreterFrame_LASTI(frame);
        slot &entry = cache[(reinterpret_cast<size_t>(code) / 64 + static_cast<size_t>(instruction)) % CACHE_SLOTS];
        if (entry.code != code || entry.instruction != instruction)
            entry = {code, instruction, site_intern(code, instruction)};
        number = entry.number;
    }
    if (number != last) {
        last = number;
        dj_set_site(number);
    }
#endif
}

std::string site_text(uint32_t number)
{
    std::lock_guard<std::mutex> guard(sites_lock);
    if (number == 0 || number >= sites.size())
        return "";
    const site &where = sites[number];
    int line = PyCode_Addr2Line(where.code, where.instruction * static_cast<int>(sizeof(uint16_t)));
    const char *file = PyUnicode_AsUTF8(where.code->co_filename);
    return std::string(file ? file : "?") + ":" + std::to_string(line);
}

void fault_start(PyObject *factory)
{
    error_factory = factory;
    Py_XINCREF(factory);
    dj_on_wait(&on_wait, nullptr);
}

[[noreturn]] void raise_fault(int error, const dj_fault &fault, const char *op, bool is_late)
{
    std::string text = fault.text[0] ? std::string(fault.text) : std::string(op) + ": " + dj_error_text_of(error);
    if (!Py_IsInitialized() || !error_factory)
        TORCH_CHECK(false, text);
    PyGILState_STATE gil = PyGILState_Ensure();
    if (error == ERROR_INTERRUPTED && interrupt_type) {
        PyErr_Restore(interrupt_type, interrupt_value, interrupt_traceback);
        interrupt_type = interrupt_value = interrupt_traceback = nullptr;
    } else {
        std::string where = is_late ? site_text(fault.site) : "";
        PyObject *made = PyObject_CallFunction(error_factory, "isssIs", error, dj_error_name_of(error), text.c_str(), op,
                                               fault.site, where.c_str());
        if (made) {
            PyErr_SetObject(reinterpret_cast<PyObject *>(Py_TYPE(made)), made);
            Py_DECREF(made);
        }
    }
    python_error raised;
    raised.persist();
    PyGILState_Release(gil);
    throw raised;
}

without_python_lock::without_python_lock()
{
    if (Py_IsInitialized() && PyGILState_Check())
        saved_ = PyEval_SaveThread();
}

without_python_lock::~without_python_lock()
{
    if (saved_)
        PyEval_RestoreThread(static_cast<PyThreadState *>(saved_));
}

}    // namespace djinn
