// The module as the program opens it: the suite of all devices on whatever DJINN_CUDA_MODULE names, the module with the emulated GPU if
// nothing. On a machine with a GPU `make test-gpu` runs it on libdjinn_cuda.so.

#include "gpu_worker/device/cuda/module.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu_worker/device/port_suite.h"

static const struct cuda_module *module_open(void)
{
    static const struct cuda_module *opened;
    const char *named = getenv("DJINN_CUDA_MODULE");
    cuda_module_get *get;

    if (opened != NULL)
        return opened;
    void *handle = dlopen(named != NULL && named[0] != '\0' ? named : DJINN_TEST_MODULE, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL)
        fail_msg("%s", dlerror());
    void *symbol = dlsym(handle, CUDA_MODULE_SYMBOL);
    assert_non_null(symbol);
    memcpy(&get, &symbol, sizeof get);
    opened = get();
    assert_int_equal(opened->version, CUDA_MODULE_VERSION);
    opened->log_to(NULL);
    return opened;
}

static struct device_port *make(const struct io_sink *sink)
{
    struct cuda_module_config config = {
        .memory_bytes = PORT_REGION_BYTES, .chaos = {.is_full = port_is_full, .loses_all = port_loses_all}, .sink = sink};
    struct device_port *port = NULL;
    struct fault fault = {.text = ""};

    if (module_open()->make(&config, &port, &fault) != DJ_OK)
        fail_msg("%s", fault.text);
    return port;
}

const struct port_subject port_subject = {.make = make};

static void what_the_machine_has_is_looked_at_once(void **state)
{
    (void)state;
    const struct cuda_load *first = NULL, *second = NULL;
    struct fault fault;
    assert_ok(module_open()->look(&first, &fault));
    assert_ok(module_open()->look(&second, &fault));
    assert_ptr_equal(first, second);
    assert_true(first->devices > 0);
}

static void a_gpu_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct cuda_module_config config = {.ordinal = 1000, .sink = port_sink()};
    struct device_port *port = NULL;
    struct fault fault = {.text = ""};
    assert_error(DJ_E_NO_DEVICE, module_open()->make(&config, &port, &fault));
    assert_non_null(strstr(fault.text, "1000"));
    assert_null(port);
}

static void the_device_says_what_it_is(void **state)
{
    struct device_port *port = port_make(state);
    assert_string_equal(port->info->backend, "cuda");
    assert_int_equal(port->info->capacity_bytes, PORT_REGION_BYTES);
    assert_true(port->info->name[0] != '\0' && port->info->numerics[0] != '\0');
}

// Last, since what CUDA gives to this process afterwards is not known: its documentation asks for a new one. On a GPU only; the emulated
// one has its own tests of this.
static void after_an_illegal_address_the_device_is_made_anew_or_says_that_it_is_gone(void **state)
{
    struct device_port *port = port_make(state);
    if (strcmp(port->info->name, "Fake GPU") == 0) {
        print_message("skipped: the GPU is emulated\n");
        skip();
    }
    struct device_tensor nowhere = port_row_tensor((uint64_t)1 << 45), here = port_row_tensor(0);
    struct device_task task = port_softmax(&nowhere, &here), zero = {.kind = DEVICE_ZERO, .bytes = PORT_ROW_BYTES};
    struct device_list bad = {.incarnation = 1, .tasks = 1, .task = &task}, good = {.incarnation = 2, .tasks = 1, .task = &zero};
    port_run(port, &bad);
    assert_error(DJ_E_DEVICE_LOST, bad.error);
    assert_non_null(strstr(bad.fault.text, "cudaErrorIllegalAddress"));
    assert_int_equal(port->info->lives, 1);
    print_message("after an illegal address the device %s\n", port->info->is_gone ? "is gone" : "was made anew");
    port_run(port, &good);
    assert_error(port->info->is_gone ? DJ_E_DEVICE_LOST : DJ_OK, good.error);
}

PORT_CASES(PORT_SUITE, what_the_machine_has_is_looked_at_once, a_gpu_that_is_not_there_is_named, the_device_says_what_it_is,
           after_an_illegal_address_the_device_is_made_anew_or_says_that_it_is_gone)
