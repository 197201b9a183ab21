/* The run-time's calls on the host's memory: streams are lists of work that runs when it is waited
 * for. */
#include "execution.h"

#include <sys/mman.h>
#include <chrono>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emulated {

typedef std::function<cudaError_t()> Work;
typedef std::vector<size_t> Nodes;

struct Graph {
    struct Node {
        Work work;
        Nodes after;
    };
    std::vector<Node> nodes;
};

/* One recording of an event: the work before it on its stream is done, or not yet. */
struct Mark {
    bool is_done = false;
    std::chrono::steady_clock::time_point time;
    Graph *graph = nullptr; // where it was captured, and after which nodes
    Nodes nodes;
};

struct Item {
    Work work;
    std::shared_ptr<Mark> waits_for; // instead
};

struct Stream {
    std::deque<Item> queue;
    Graph *graph = nullptr; // being captured
    bool is_origin = false;
    Nodes last; // what its next node comes after
};

struct Event {
    std::shared_ptr<Mark> mark; // its last recording
};

static std::vector<Stream *> streams;
static Stream default_stream;
static cudaError_t pending = cudaSuccess; // of work that ran, not yet told
static cudaError_t last_error = cudaSuccess;
static std::string details;

static Stream &resolve(cudaStream_t of) { return of ? *of : default_stream; }
static cudaError_t keep(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}
static cudaError_t refuse(cudaError_t error, const std::string &why) {
    details = why;
    return keep(error);
}

/* Runs one thing of one stream, drawn; false where none can run. */
static bool step() {
    std::vector<Stream *> able;
    const auto consider = [&](Stream *one) {
        while (!one->queue.empty() && one->queue.front().waits_for &&
               one->queue.front().waits_for->is_done)
            one->queue.pop_front();
        if (!one->queue.empty() && !one->queue.front().waits_for) able.push_back(one);
    };
    consider(&default_stream);
    for (Stream *one : streams) consider(one);
    if (able.empty()) return false;
    Stream &chosen = *able[draw((uint32_t)able.size())];
    const Work work = std::move(chosen.queue.front().work);
    chosen.queue.pop_front();
    const cudaError_t error = work();
    if (pending == cudaSuccess) pending = error;
    return true;
}

/* Runs until `is_done`; gives the first error of what ran since the last time. */
template <typename F> static cudaError_t run_until(F is_done) {
    while (!is_done())
        if (!step()) return refuse(cudaErrorUnknown, "a stream waits for an event for ever");
    const cudaError_t error = pending;
    pending = cudaSuccess;
    return keep(error);
}

static cudaError_t queue(cudaStream_t to, Work work) {
    Stream &on = resolve(to);
    if (on.graph) {
        on.graph->nodes.push_back({std::move(work), on.last});
        on.last = {on.graph->nodes.size() - 1};
    } else {
        on.queue.push_back({std::move(work), nullptr});
    }
    return cudaSuccess;
}

static bool is_capturing() {
    for (Stream *one : streams)
        if (one->graph) return true;
    return false;
}

cudaError_t launch(dim3 grid, dim3 block, size_t shared, std::function<void()> thread) {
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    const auto text = [](dim3 of) {
        return std::to_string(of.x) + "x" + std::to_string(of.y) + "x" + std::to_string(of.z);
    };
    if (threads < 1 || threads > 1024 || block.z > 64)
        return refuse(cudaErrorInvalidConfiguration, "a block of " + text(block) + " threads");
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        return refuse(cudaErrorInvalidConfiguration, "a grid of " + text(grid) + " blocks");
    if (shared > MAX_SHARED)
        return refuse(cudaErrorInvalidValue, std::to_string(shared) + " bytes of shared memory");
    return queue(::stream, [=] {
        const char *error = run_grid(grid, block, shared, thread);
        return error ? refuse(cudaErrorLaunchFailure, error) : cudaSuccess;
    });
}

/* ---- memory ---- */

constexpr size_t DEVICE_BYTES = 4ull << 30, GUARD = 4096;
static std::map<char *, size_t> allocated; // on the device
static std::map<char *, size_t> pinned;    // on the host
static size_t used = 0;

static bool is_within(const std::map<char *, size_t> &areas, const void *at, size_t bytes) {
    auto area = areas.upper_bound((char *)at);
    if (area == areas.begin()) return false;
    --area;
    return (char *)at + bytes <= area->first + area->second;
}

static cudaError_t copy_now(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device && !is_within(allocated, to, bytes))
        return refuse(cudaErrorInvalidValue, "a copy to what is not the device's memory");
    if (from_device && !is_within(allocated, from, bytes))
        return refuse(cudaErrorInvalidValue, "a copy from what is not the device's memory");
    memmove(to, from, bytes);
    return cudaSuccess;
}

} // namespace emulated

using namespace emulated;

__attribute__((weak)) cudaStream_t stream = nullptr;
__attribute__((weak)) void keep_error(cudaError_t error) {
    if (pending == cudaSuccess) pending = error;
}

extern "C" const char *emulated_failure(void) { return details.c_str(); }

const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess ? "no error" : details.c_str();
}

const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureUnjoined: return "cudaErrorStreamCaptureUnjoined";
    default: return "cudaError";
    }
}

cudaError_t cudaPeekAtLastError() { return last_error; }
cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

/* ---- the device ---- */

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : refuse(cudaErrorInvalidDevice, "there is one device");
}
cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDeviceFlags(unsigned) { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (device != 0) return cudaSetDevice(device);
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "emulated GPU");
    properties->totalGlobalMem = DEVICE_BYTES;
    properties->sharedMemPerBlock = 48 * 1024;
    properties->sharedMemPerBlockOptin = MAX_SHARED;
    properties->sharedMemPerMultiprocessor = MAX_SHARED + 1024;
    properties->multiProcessorCount = 3; // few, and no power of two
    properties->major = 9;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->l2CacheSize = 1 << 20;
    properties->regsPerBlock = 65536;
    properties->memoryBusWidth = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    cudaDeviceProp properties;
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, device)) return error;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = properties.maxThreadsPerBlock; break;
    case cudaDevAttrClockRate: *value = 1000000; break;
    case cudaDevAttrMultiProcessorCount: *value = properties.multiProcessorCount; break;
    case cudaDevAttrMemoryClockRate: *value = 1000000; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = properties.memoryBusWidth; break;
    case cudaDevAttrL2CacheSize: *value = properties.l2CacheSize; break;
    case cudaDevAttrComputeCapabilityMajor: *value = properties.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = properties.minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = MAX_SHARED; break;
    default: return refuse(cudaErrorInvalidValue, "an attribute that the emulation lacks");
    }
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute attribute, int value) {
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value > (int)MAX_SHARED)
        return refuse(cudaErrorInvalidValue, std::to_string(value) + " bytes of shared memory");
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
    if (is_capturing()) return refuse(cudaErrorStreamCaptureUnsupported, "waiting in a capture");
    return run_until([] {
        for (Stream *one : streams)
            if (!one->queue.empty()) return false;
        return default_stream.queue.empty();
    });
}

/* ---- memory ---- */

cudaError_t cudaMalloc(void **address, size_t bytes) {
    const size_t room = (bytes + GUARD - 1) / GUARD * GUARD;
    if (used + room > DEVICE_BYTES) return refuse(cudaErrorMemoryAllocation, "out of memory");
    void *memory = mmap(nullptr, room + GUARD, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return refuse(cudaErrorMemoryAllocation, "out of memory");
    mprotect((char *)memory + room, GUARD, PROT_NONE);
    allocated[(char *)memory] = bytes;
    used += room;
    *address = memory;
    return cudaSuccess;
}

cudaError_t cudaFree(void *address) {
    if (!address) return cudaSuccess;
    const auto found = allocated.find((char *)address);
    if (found == allocated.end())
        return refuse(cudaErrorInvalidValue, "what is freed was not allocated");
    const cudaError_t error = cudaDeviceSynchronize();
    const size_t room = (found->second + GUARD - 1) / GUARD * GUARD;
    munmap(address, room + GUARD);
    used -= room;
    allocated.erase(found);
    return error;
}

cudaError_t cudaMallocHost(void **address, size_t bytes) {
    *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (!*address) return refuse(cudaErrorMemoryAllocation, "out of the host's memory");
    pinned[(char *)*address] = bytes;
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **address, size_t bytes, unsigned) {
    return cudaMallocHost(address, bytes);
}
cudaError_t cudaFreeHost(void *address) {
    if (!pinned.erase((char *)address))
        return refuse(cudaErrorInvalidValue, "what is freed was not allocated");
    free(address);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    *free = DEVICE_BYTES - used;
    *total = DEVICE_BYTES;
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t on) {
    if (!is_within(allocated, to, bytes))
        return refuse(cudaErrorInvalidValue, "memset of what is not the device's memory");
    return queue(on, [=] {
        memset(to, value, bytes);
        return cudaSuccess;
    });
}
cudaError_t cudaMemset(void *to, int value, size_t bytes) {
    if (const cudaError_t error = cudaMemsetAsync(to, value, bytes, nullptr)) return error;
    return cudaDeviceSynchronize();
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t on) {
    const bool from_host = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyHostToHost;
    if (from_host && !is_within(pinned, from, bytes) && !resolve(on).graph) {
        // Pageable memory is read before the call returns, pinned memory some time later.
        const auto staged =
            std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        return queue(on, [=] { return copy_now(to, staged->data(), bytes, kind); });
    }
    const cudaError_t error = queue(on, [=] { return copy_now(to, from, bytes, kind); });
    const bool to_host = kind == cudaMemcpyDeviceToHost;
    if (error || !to_host || resolve(on).graph || is_within(pinned, to, bytes)) return error;
    return cudaStreamSynchronize(on);
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    if (const cudaError_t error = cudaDeviceSynchronize()) return error;
    return keep(copy_now(to, from, bytes, kind));
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreate(cudaStream_t *made) {
    streams.push_back(*made = new Stream());
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *made, unsigned) {
    return cudaStreamCreate(made);
}
cudaError_t cudaStreamDestroy(cudaStream_t of) {
    const cudaError_t error = cudaStreamSynchronize(of);
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == of) streams.erase(streams.begin() + i);
    delete of;
    return error;
}
cudaError_t cudaStreamSynchronize(cudaStream_t of) {
    Stream &on = resolve(of);
    if (on.graph) return refuse(cudaErrorStreamCaptureUnsupported, "waiting in a capture");
    return run_until([&] { return on.queue.empty(); });
}
cudaError_t cudaStreamQuery(cudaStream_t of) {
    step();
    return resolve(of).queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    *event = new Event();
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
    return cudaEventCreate(event);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t of) {
    Stream &on = resolve(of);
    const auto mark = event->mark = std::make_shared<Mark>();
    if (on.graph) {
        mark->graph = on.graph;
        mark->nodes = on.last;
        return cudaSuccess;
    }
    return queue(of, [mark] {
        mark->is_done = true;
        mark->time = std::chrono::steady_clock::now();
        return cudaSuccess;
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t of, cudaEvent_t event, unsigned) {
    Stream &on = resolve(of);
    if (!event->mark) return cudaSuccess; // never recorded
    if (event->mark->graph) {
        if (on.graph && on.graph != event->mark->graph)
            return refuse(cudaErrorStreamCaptureUnsupported, "an event of another capture");
        on.graph = event->mark->graph; // a stream that waits for a captured one is captured too
        const Nodes &nodes = event->mark->nodes;
        on.last.insert(on.last.end(), nodes.begin(), nodes.end());
        return cudaSuccess;
    }
    if (on.graph) return refuse(cudaErrorStreamCaptureUnsupported, "an event from outside");
    on.queue.push_back({nullptr, event->mark});
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const auto mark = event->mark;
    if (!mark) return cudaSuccess;
    if (mark->graph) return refuse(cudaErrorStreamCaptureUnsupported, "waiting in a capture");
    return run_until([&] { return mark->is_done; });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    step();
    return !event->mark || event->mark->is_done ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
    if (!from->mark || !to->mark) return refuse(cudaErrorInvalidResourceHandle, "never recorded");
    if (!from->mark->is_done || !to->mark->is_done) return cudaErrorNotReady;
    const std::chrono::duration<float, std::milli> passed = to->mark->time - from->mark->time;
    *milliseconds = passed.count();
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t of, cudaStreamCaptureMode) {
    if (!of || of->graph)
        return refuse(cudaErrorStreamCaptureUnsupported, "a stream that cannot be captured");
    of->graph = new Graph();
    of->is_origin = true;
    of->last.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t of, cudaGraph_t *graph) {
    if (!of->graph || !of->is_origin)
        return refuse(cudaErrorInvalidValue, "this stream's capture was not begun");
    *graph = of->graph;
    // What the origin's end comes after, directly or not, is all, or a stream was not joined.
    std::vector<bool> is_before((*graph)->nodes.size(), false);
    for (size_t node : of->last) is_before[node] = true;
    bool is_joined = true;
    for (size_t i = is_before.size(); i-- > 0;) {
        if (!is_before[i]) is_joined = false;
        for (size_t node : (*graph)->nodes[i].after) is_before[node] = is_before[node] || is_before[i];
    }
    for (Stream *one : streams) {
        if (one->graph != *graph) continue;
        one->graph = nullptr;
        one->is_origin = false;
        one->last.clear();
    }
    if (is_joined) return cudaSuccess;
    delete *graph;
    *graph = nullptr;
    return refuse(cudaErrorStreamCaptureUnjoined, "a captured stream was not joined");
}

cudaError_t cudaStreamIsCapturing(cudaStream_t of, cudaStreamCaptureStatus *status) {
    *status = resolve(of).graph ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *run, cudaGraph_t graph, unsigned long long) {
    *run = new Graph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

/* Runs a graph's nodes in an order that is drawn, as far as they do not depend on one another. */
static cudaError_t replay(const Graph &graph) {
    std::vector<size_t> waits(graph.nodes.size()), able;
    std::vector<Nodes> next(graph.nodes.size());
    for (size_t i = 0; i < graph.nodes.size(); i++) {
        waits[i] = graph.nodes[i].after.size();
        for (size_t node : graph.nodes[i].after) next[node].push_back(i);
        if (!waits[i]) able.push_back(i);
    }
    while (!able.empty()) {
        std::swap(able[draw((uint32_t)able.size())], able.back());
        const size_t node = able.back();
        able.pop_back();
        if (const cudaError_t error = graph.nodes[node].work()) return error;
        for (size_t follower : next[node])
            if (--waits[follower] == 0) able.push_back(follower);
    }
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t run, cudaStream_t on) {
    const auto copy = std::make_shared<Graph>(*run); // it may be destroyed before it runs
    return queue(on, [copy] { return replay(*copy); });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t run) { return cudaGraphDestroy(run); }
