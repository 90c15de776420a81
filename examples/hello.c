/* hello.c: Djinn from C. Uploads two matrices, multiplies them on a worker, reads the product and checks it.
 *
 *     cc hello.c -ldjinn && DJINN_ADDRESS=127.0.0.1:7070 ./a.out        (without an address: a head and worker of its own)
 *     ./a.out NAME        keeps the session under that name: run again, it is answered from what the head has recorded
 */

#include <stdio.h>
#include <stdlib.h>

#include "djinn/djinn.h"

enum { ROWS = 64, INNER = 128, COLUMNS = 32 };

static void check(const char *what, int error, const struct dj_fault *fault)
{
    if (error == 0)
        return;
    fprintf(stderr, "hello: %s: %s: %s\n", what, dj_error_name_of(error), fault->text);
    exit(1);
}

static struct dj_tensor matrix(const float *data, long rows, long columns)
{
    struct dj_fault fault = {0};
    struct dj_tensor shape = {.dtype = 9, .rank = 2, .size = {rows, columns}, .stride = {columns, 1}}, tensor;
    check("upload", dj_upload(DJ_ANY_DEVICE, data, &shape, &tensor, &fault), &fault);
    return tensor;
}

int main(int argc, char **argv)
{
    struct dj_config config = {.session = argc > 1 ? argv[1] : NULL};
    static float a[ROWS * INNER], b[INNER * COLUMNS], product[ROWS * COLUMNS];
    struct dj_fault fault = {0};
    for (int i = 0; i < ROWS * INNER; i++)
        a[i] = (float)(i % 7 - 3);
    for (int i = 0; i < INNER * COLUMNS; i++)
        b[i] = (float)(i % 5 - 2);

    check("connecting", dj_init(&config, &fault), &fault);
    printf("hello: connected; the pool has %d device(s)\n", dj_device_count());

    struct dj_tensor left = matrix(a, ROWS, INNER), right = matrix(b, INNER, COLUMNS), result;
    struct dj_arg in[2] = {{.kind = DJ_ARG_TENSOR, .tensor = &left}, {.kind = DJ_ARG_TENSOR, .tensor = &right}};
    check("mm", dj_record(dj_op_find("mm")->number, in, 2, NULL, 0, 0, DJ_ANY_DEVICE, &result, &fault), &fault);
    check("read", dj_read(&result, product, sizeof product, &fault), &fault);

    /* Small integers: every order of the sums gives the same floats. */
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++) {
            float sum = 0;
            for (int k = 0; k < INNER; k++)
                sum += a[r * INNER + k] * b[k * COLUMNS + c];
            if (sum != product[r * COLUMNS + c]) {
                fprintf(stderr, "hello: element (%d, %d) is %g, not %g\n", r, c, (double)product[r * COLUMNS + c], (double)sum);
                return 1;
            }
        }
    struct dj_stats stats;
    dj_stats(&stats);
    printf("hello: %dx%d times %dx%d is right; %llu execution(s), %llu bytes out, %llu bytes in\n", ROWS, INNER, INNER, COLUMNS,
           (unsigned long long)stats.executions, (unsigned long long)stats.bytes_out, (unsigned long long)stats.bytes_in);
    dj_cell_drop(left.cell);
    dj_cell_drop(right.cell);
    dj_cell_drop(result.cell);
    return dj_shutdown(config.session != NULL);
}
