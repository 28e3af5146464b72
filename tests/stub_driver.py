"""A CUDA driver that does nothing but say what it was asked: to see that our calls reach one as they should.

`build` compiles it; a process that finds it before the real one, if there is any, talks to it. What `STUB_FAIL` names
fails with the code `STUB_CODE`.
"""

import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long address;
#define SAY(...) (printf(__VA_ARGS__), putchar('\n'), fflush(stdout))
#define DONE return status(__func__)
static void *current;
static int number(const char *name, int other) { const char *text = getenv(name); return text ? atoi(text) : other; }
static int status(const char *function) {
    const char *failing = getenv("STUB_FAIL");
    return failing && !strcmp(failing, function) ? number("STUB_CODE", 999) : 0;
}
int cuInit(unsigned flags) { DONE; }
int cuDriverGetVersion(int *version) { *version = 13000; DONE; }
int cuDeviceGetCount(int *count) { *count = number("STUB_DEVICES", 1); DONE; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; DONE; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "Stub", size); DONE; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? number("STUB_MAJOR", 9) : attribute == 76 ? 5 : attribute == 16 ? 132
           : attribute == 97 ? 232448 : attribute == 115 ? number("STUB_POOLS", 1) : -1;
    DONE;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(uintptr_t)device; DONE; }
int cuCtxPushCurrent_v2(void *context) { SAY("push %ld", (long)context); current = context; DONE; }
int cuCtxPopCurrent_v2(void **context) { SAY("pop"); *context = current; current = 0; DONE; }
int cuCtxGetCurrent(void **context) { *context = current; DONE; }
int cuMemGetInfo_v2(size_t *left, size_t *all) { *left = 5; *all = 9; DONE; }
int cuPointerGetAttribute(void *data, int attribute, address pointer) {
    if (pointer < 4096) return 1;
    *(int *)data = attribute == 2 ? 2 : 3;
    DONE;
}
int cuLibraryLoadData(void **library, const char *code, int *options, void **values, unsigned count, int *more,
                      void **others, unsigned number) {
    SAY("load %s options %u: %d %d %zu, %u", code, count, options[0], options[1], (size_t)values[1], number);
    strcpy(values[0], "ptxas says");
    *library = (void *)5;
    DONE;
}
int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
    SAY("kernel %s of %ld", name, (long)library);
    *kernel = (void *)6;
    DONE;
}
int cuKernelSetAttribute(int attribute, int value, void *kernel, int device) {
    SAY("attribute %d of %ld on %d: %d", attribute, (long)kernel, device, value);
    DONE;
}
int cuLaunchKernel(void *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    printf("launch %ld: %u %u %u x %u %u %u, %u bytes, stream %ld, %ld; ", (long)kernel, gx, gy, gz, bx, by, bz, shared,
           (long)stream, (long)parameters);
    printf("tags %ld %ld %ld:", (long)extra[0], (long)extra[2], (long)extra[4]);
    size_t size = *(size_t *)extra[3];
    int64_t *integers = extra[1];
    for (size_t k = 0; k + 8 < size; k += 8) printf(" %ld", (long)integers[k / 8]);
    SAY(" %g", ((double *)extra[1])[size / 8 - 1]);
    DONE;
}
int cuMemAllocAsync(address *at, size_t size, void *stream) {
    SAY("take %zu on %ld", size, (long)stream);
    *at = 8192;
    DONE;
}
int cuMemFreeAsync(address at, void *stream) { SAY("give %llu on %ld", at, (long)stream); DONE; }
int cuMemAlloc_v2(address *at, size_t size) { SAY("take %zu", size); *at = 8192; DONE; }
int cuMemFree_v2(address at) { SAY("give %llu", at); DONE; }
int cuMemHostAlloc(void **at, size_t size, unsigned flags) { SAY("pin %zu: %u", size, flags); *at = (void *)7; DONE; }
int cuMemHostGetDevicePointer_v2(address *at, void *host, unsigned flags) { *at = (address)host + 1; DONE; }
int cuMemFreeHost(void *at) { SAY("unpin %ld", (long)at); DONE; }
int cuMemcpyAsync(address to, address from, size_t size, void *stream) {
    SAY("copy %llu to %llu: %zu on %ld", from, to, size, (long)stream);
    DONE;
}
int cuStreamCreate(void **stream, unsigned flags) { SAY("stream: %u", flags); *stream = (void *)11; DONE; }
int cuStreamDestroy_v2(void *stream) { SAY("end stream %ld", (long)stream); DONE; }
int cuStreamSynchronize(void *stream) { SAY("wait stream %ld", (long)stream); DONE; }
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    SAY("%ld waits for %ld", (long)stream, (long)event);
    DONE;
}
int cuEventCreate(void **event, unsigned flags) { SAY("event: %u", flags); *event = (void *)12; DONE; }
int cuEventDestroy_v2(void *event) { SAY("end event %ld", (long)event); DONE; }
int cuEventRecord(void *event, void *stream) { SAY("record %ld on %ld", (long)event, (long)stream); DONE; }
int cuEventQuery(void *event) { DONE; }
int cuEventSynchronize(void *event) { SAY("wait event %ld", (long)event); DONE; }
int cuGetErrorName(int error, const char **name) {
    *name = error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : error == 222 ? "CUDA_ERROR_UNSUPPORTED_PTX_VERSION" : 0;
    return *name ? 0 : 1;
}
int cuGetErrorString(int error, const char **text) { *text = "what it means"; return 0; }
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *found) {
    char newest[256];
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    snprintf(newest, sizeof newest, "%s_v2", name);
    *function = dlsym(library, newest);
    if (!*function) *function = dlsym(library, name);
    if (found) *found = 0;
    return *function ? 0 : 500;
}
int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, 0);
}
"""


def build(folder: Path) -> None:
    """Compile the driver into a folder, which is then to be in LD_LIBRARY_PATH."""
    source = folder / "driver.c"
    source.write_text(SOURCE)
    library = folder / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
