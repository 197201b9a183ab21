/* The run-time's errors, and the one device. */
#include "streams.h"

#include <cstdio>

namespace emulated {

static cudaError_t last_error = cudaSuccess;
static std::string details;

cudaError_t keep(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}
cudaError_t refuse(cudaError_t error, const std::string &why) {
    details = why;
    return keep(error);
}

} // namespace emulated

using namespace emulated;

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

static int capability = 9;
void emulated_capability(int major) { capability = major; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (device != 0) return cudaSetDevice(device);
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "emulated GPU");
    properties->totalGlobalMem = DEVICE_BYTES;
    properties->sharedMemPerBlock = 48 * 1024;
    properties->sharedMemPerBlockOptin = MAX_SHARED;
    properties->sharedMemPerMultiprocessor = MAX_SHARED + 1024;
    properties->multiProcessorCount = 3; // few, and no power of two
    properties->major = capability;
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

