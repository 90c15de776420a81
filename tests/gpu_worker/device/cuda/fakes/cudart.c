// A runtime library to be found by load.c: it answers what the environment says, and does nothing.

#include <stdlib.h>

int cudaRuntimeGetVersion(int *ret);
int cudaDriverGetVersion(int *ret);
int cudaGetDeviceCount(int *ret);
const char *cudaGetErrorString(int error);
const char *cudaGetErrorName(int error);

static int number(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : (int)strtol(text, NULL, 10);
}

int cudaRuntimeGetVersion(int *ret)
{
    *ret = number("FAKE_RUNTIME", 13000);
    return 0;
}

int cudaDriverGetVersion(int *ret)
{
    *ret = number("FAKE_DRIVER", 13000);
    return 0;
}

int cudaGetDeviceCount(int *ret)
{
    *ret = number("FAKE_DEVICES", 2);
    return number("FAKE_STATUS", 0);
}

const char *cudaGetErrorString(int error)
{
    return error == 999 ? "unknown error" : "no error";
}

const char *cudaGetErrorName(int error)
{
    return error == 999 ? "cudaErrorUnknown" : "cudaSuccess";
}
