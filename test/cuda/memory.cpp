/* The device's memory, and copies: they are the host's, but only what was allocated counts as the
 * device's. */
#include "sanitizer.h"
#include "streams.h"

#include <sys/mman.h>
#include <map>

namespace emulated {

constexpr size_t GUARD = 4096; // a page that nobody may touch
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

cudaError_t cudaMalloc(void **address, size_t bytes) {
    const size_t room = (bytes + GUARD - 1) / GUARD * GUARD;
    if (used + room > DEVICE_BYTES) return refuse(cudaErrorMemoryAllocation, "out of memory");
    void *memory = mmap(nullptr, room + GUARD, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return refuse(cudaErrorMemoryAllocation, "out of memory");
    mprotect((char *)memory + room, GUARD, PROT_NONE);
    ASAN_POISON_MEMORY_REGION((char *)memory + bytes, room - bytes);
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
    ASAN_UNPOISON_MEMORY_REGION(address, room);
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

