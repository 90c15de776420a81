// C++ because tensors cross between Python and PyTorch's C++ here.
// checkpoint and restore of `_djinn_torch`: lists of tensors, in order; what they mean is the package's business.

#include <Python.h>

#include "keep.h"
#include "shim.h"

#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>

#include <vector>

namespace djinn
{

namespace
{

constexpr uint32_t TENSORS_MAX = 1 << 13;    // RECORD_TAG_ENTRIES_MAX

std::vector<at::Tensor> tensors_of(PyObject *list)
{
    std::vector<at::Tensor> tensors;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        TORCH_CHECK_TYPE(THPVariable_Check(item), "checkpoint: entry ", i, " is not a tensor");
        tensors.push_back(THPVariable_Unpack(item));
        TORCH_CHECK_VALUE(is_remote(tensors.back()), "checkpoint: entry ", i, " is on ", tensors.back().device(),
                          ", not on remote_accelerator");
    }
    return tensors;
}

}    // namespace

PyObject *checkpoint(PyObject *, PyObject *args)
{
    const char *tag;
    PyObject *list;
    if (!PyArg_ParseTuple(args, "sO!", &tag, &PyList_Type, &list))
        return nullptr;
    HANDLE_TH_ERRORS
    std::vector<at::Tensor> tensors = tensors_of(list);
    std::vector<dj_tensor> windows(tensors.size());
    dj_fault fault = {};
    int error;
    note_site();
    {
        without_python_lock unlocked;
        for (size_t i = 0; i < tensors.size(); i++)
            window_of(tensors[i], &windows[i]);
        error = dj_checkpoint(tag, windows.data(), static_cast<uint32_t>(windows.size()), &fault);
    }
    if (error)
        raise_fault(error, fault, "checkpoint", /*is_late=*/true);
    Py_RETURN_NONE;
    END_HANDLE_TH_ERRORS
}

PyObject *restore(PyObject *, PyObject *args)
{
    const char *tag;
    int index;
    if (!PyArg_ParseTuple(args, "si", &tag, &index))
        return nullptr;
    HANDLE_TH_ERRORS
    c10::Device device = device_of_index(static_cast<c10::DeviceIndex>(index));
    std::vector<dj_tensor> windows(TENSORS_MAX);
    uint32_t count = 0;
    dj_fault fault = {};
    int error;
    note_site();
    {
        without_python_lock unlocked;
        error = dj_restore(tag, placement_of_index(device.index()), windows.data(), TENSORS_MAX, &count, &fault);
    }
    if (error)
        raise_fault(error, fault, "restore", /*is_late=*/true);
    std::vector<at::Tensor> tensors;
    for (uint32_t i = 0; i < count; i++)
        tensors.push_back(tensor_make(windows[i], device));
    PyObject *list = PyList_New(static_cast<Py_ssize_t>(count));
    for (uint32_t i = 0; list && i < count; i++)
        PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), THPVariable_Wrap(tensors[i]));
    return list;
    END_HANDLE_TH_ERRORS
}

}    // namespace djinn
