// The device's memory, its stream, and graphs of what is queued on it.

#include <stdio.h>
#include <string.h>

#include "launch.h"

#pragma GCC visibility push(default)
extern "C" {
#include "device.h"
}
#pragma GCC visibility pop

extern "C" {
/* Opens the products' library (product.h). */
int product_open(const char *path) __attribute__((weak));
}

cudaStream_t stream;

// What is uploaded waits in the host's pinned memory, crosses on a stream of its own into a place on
// the device, and is moved from there in the order of the calls: it crosses while the step before,
// which still reads what it will replace, is running.
static cudaStream_t copies;
constexpr int SLOTS = 4;
constexpr i64 SLOT_BYTES = (i64)4 << 20;
struct Slot {
    char *host, *device;
    cudaEvent_t crossed, moved;
};
static Slot slots[SLOTS];
static u32 next_slot;

// What is downloaded lands in pinned memory, one piece while the one before is copied on.
constexpr int LANDINGS = 2;
struct Landing {
    char *host;
    cudaEvent_t done;
};
static Landing landings[LANDINGS];
static Landing fetches[DEVICE_FETCHES];
static u32 fetched;

static cudaError_t kept;
static char words[256], message[256];
static char gpu_name[256], bus[32];

void keep_error(cudaError_t error) {
    if (error == cudaSuccess) return;
    cudaGetLastError(); // it is reported once, here
    if (kept != cudaSuccess) return;
    kept = error;
    snprintf(words, sizeof words, "%s (%s)", cudaGetErrorString(error), cudaGetErrorName(error));
}

void keep_failure(const char *what, cudaError_t error) {
    if (kept != cudaSuccess) return;
    kept = error;
    snprintf(words, sizeof words, "%s", what);
}

static void write_text(char *out, int size, const char *text) {
    if (size > 0) snprintf(out, (size_t)size, "%s", text);
}

static cudaError_t make_event(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDisableTiming);
}

static void make_landing(Landing &landing, i64 bytes) {
    keep_error(cudaMallocHost((void **)&landing.host, (size_t)bytes));
    keep_error(make_event(&landing.done));
}

extern "C" {

int device_status(void) {
    const cudaError_t error = kept;
    if (error == cudaSuccess) return 0;
    memcpy(message, words, sizeof message);
    kept = cudaSuccess;
    return (int)error;
}

int device_count(void) {
    int count = 0, major = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    cudaGetLastError();
    if (error == cudaErrorNoDevice) return 0;
    if (error == cudaErrorInsufficientDriver)
        keep_failure("there is no NVIDIA driver, or one too old for this CUDA (install a newer one)");
    keep_error(error);
    if (kept == cudaSuccess && count > 0) {
        keep_error(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
        if (major < 8)
            keep_failure("the GPU's compute capability is below 8.0, which the kernels need");
    }
    return device_status() == 0 ? count : -1;
}

int device_open(int index, const char *cublaslt) {
    if (stream) return device_status();
    cudaDeviceProp properties;
    keep_error(cudaSetDevice(index));
    keep_error(cudaGetDeviceProperties(&properties, index));
    if (kept != cudaSuccess) return device_status();
    write_text(gpu_name, sizeof gpu_name, properties.name);
#ifndef LLM_EMULATED
    keep_error(cudaDeviceGetPCIBusId(bus, sizeof bus, index));
#endif
    keep_error(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    keep_error(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking));
    for (Slot &slot : slots) {
        keep_error(cudaMallocHost((void **)&slot.host, SLOT_BYTES));
        keep_error(cudaMalloc((void **)&slot.device, SLOT_BYTES));
        keep_error(make_event(&slot.crossed));
        keep_error(make_event(&slot.moved));
    }
    for (Landing &landing : landings) make_landing(landing, SLOT_BYTES);
    for (Landing &fetch : fetches) make_landing(fetch, DEVICE_FETCH_BYTES);
    if (kept == cudaSuccess && product_open) keep_error((cudaError_t)product_open(cublaslt));
    return device_status();
}

#define TEXT(...) #__VA_ARGS__
#define TEXT_OF(...) TEXT(__VA_ARGS__)
#ifdef LLM_EMULATED
#define __CUDA_ARCH_LIST__ emulation
#endif
void device_built(char *out, int size) { write_text(out, size, TEXT_OF(__CUDA_ARCH_LIST__)); }
void device_name(char *out, int size) { write_text(out, size, gpu_name); }
void device_bus(char *out, int size) { write_text(out, size, bus); }
void device_message(char *out, int size) { write_text(out, size, message); }

i64 device_memory(void) {
    size_t left = 0, all = 0;
    keep_error(cudaMemGetInfo(&left, &all));
    return (i64)all;
}

i64 device_memory_free(void) {
    size_t left = 0, all = 0;
    keep_error(cudaMemGetInfo(&left, &all));
    return (i64)left;
}

int device_driver(void) {
    int version = 0;
    keep_error(cudaDriverGetVersion(&version));
    return version;
}

int device_fp8(void) {
    int device = 0, major = 0, minor = 0;
    keep_error(cudaGetDevice(&device));
    keep_error(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    keep_error(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    return 10 * major + minor >= 89;
}

i64 device_allocate(i64 bytes) {
    void *address = nullptr;
    const cudaError_t error = cudaMalloc(&address, (size_t)bytes);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return 0;
    }
    keep_error(error);
    if (error != cudaSuccess) return 0;
    keep_error(cudaMemsetAsync(address, 0, (size_t)bytes, stream));
    return (i64)address;
}

int device_free(i64 address) {
    keep_error(cudaStreamSynchronize(stream));
    keep_error(cudaFree((void *)address));
    return device_status();
}

int device_upload(i64 to, const void *from, i64 bytes) {
    for (i64 at = 0; at < bytes; at += SLOT_BYTES) {
        const size_t size = (size_t)(bytes - at < SLOT_BYTES ? bytes - at : SLOT_BYTES);
        const Slot &slot = slots[next_slot++ % SLOTS];
        keep_error(cudaEventSynchronize(slot.moved)); // of the slot's last use
        memcpy(slot.host, (const char *)from + at, size);
        keep_error(cudaMemcpyAsync(slot.device, slot.host, size, cudaMemcpyHostToDevice, copies));
        keep_error(cudaEventRecord(slot.crossed, copies));
        keep_error(cudaStreamWaitEvent(stream, slot.crossed, 0));
        keep_error(cudaMemcpyAsync((char *)to + at, slot.device, size, cudaMemcpyDeviceToDevice,
                                   stream));
        keep_error(cudaEventRecord(slot.moved, stream));
        if (kept != cudaSuccess) break;
    }
    return device_status();
}

static void land(const Landing &landing, i64 from, i64 bytes) {
    keep_error(cudaMemcpyAsync(landing.host, (const char *)from, (size_t)bytes,
                               cudaMemcpyDeviceToHost, stream));
    keep_error(cudaEventRecord(landing.done, stream));
}

static void carry_on(void *to, const Landing &landing, i64 bytes) {
    keep_error(cudaEventSynchronize(landing.done));
    if (kept == cudaSuccess) memcpy(to, landing.host, (size_t)bytes);
}

int device_download(void *to, i64 from, i64 bytes) {
    const i64 pieces = ceil_div(bytes, SLOT_BYTES);
    for (i64 i = 0; i <= pieces && kept == cudaSuccess; i++) {
        const i64 at = i * SLOT_BYTES, before = at - SLOT_BYTES;
        if (i < pieces)
            land(landings[i % LANDINGS], from + at, bytes - at < SLOT_BYTES ? bytes - at : SLOT_BYTES);
        if (i > 0)
            carry_on((char *)to + before, landings[(i - 1) % LANDINGS],
                     bytes - before < SLOT_BYTES ? bytes - before : SLOT_BYTES);
    }
    return device_status();
}

int device_copy(i64 to, i64 from, i64 bytes) {
    keep_error(cudaMemcpyAsync((void *)to, (const void *)from, (size_t)bytes,
                               cudaMemcpyDeviceToDevice, stream));
    return device_status();
}

int device_fetch(i64 from, i64 bytes) {
    if (bytes > DEVICE_FETCH_BYTES) keep_error(cudaErrorInvalidValue);
    if (kept != cudaSuccess) return -1;
    const int number = (int)(fetched++ % DEVICE_FETCHES);
    land(fetches[number], from, bytes);
    return kept == cudaSuccess ? number : -1;
}

int device_fetched(void *to, int number, i64 bytes) {
    carry_on(to, fetches[number], bytes);
    return device_status();
}

int device_wait(void) {
    keep_error(cudaStreamSynchronize(stream));
    return device_status();
}

int device_record(void) {
    keep_error(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    return device_status();
}

i64 device_recorded(void) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t ready = nullptr;
    keep_error(cudaStreamEndCapture(stream, &graph));
    if (kept == cudaSuccess) keep_error(cudaGraphInstantiate(&ready, graph, 0));
    if (graph) keep_error(cudaGraphDestroy(graph));
    return (i64)ready;
}

int device_replay(i64 graph) {
    keep_error(cudaGraphLaunch((cudaGraphExec_t)graph, stream));
    return device_status();
}

void device_forget(i64 graph) { keep_error(cudaGraphExecDestroy((cudaGraphExec_t)graph)); }

/* A GPU's threads are not set by number. */
int llm_threads(int n) {
    (void)n;
    return 1;
}
}
