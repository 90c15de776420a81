// What the fakes of cuBLASLt and cuDNN say they are.

#include <stddef.h>

size_t cublasLtGetVersion(void);
size_t cudnnGetVersion(void);

size_t cublasLtGetVersion(void)
{
    return 130100;
}

size_t cudnnGetVersion(void)
{
    return 91900;
}
