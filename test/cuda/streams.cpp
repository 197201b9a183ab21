/* Streams and events: what is queued runs when it is waited for, and not in an order that a program
 * could count on. */
#include "streams.h"

namespace emulated {

std::vector<Stream *> streams;
static Stream default_stream;
static cudaError_t pending = cudaSuccess; // of work that ran, not yet told

Stream &resolve(cudaStream_t of) { return of ? *of : default_stream; }

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

cudaError_t queue(cudaStream_t to, Work work) {
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

} // namespace emulated

using namespace emulated;

cudaError_t cudaDeviceSynchronize() {
    if (is_capturing()) return refuse(cudaErrorStreamCaptureUnsupported, "waiting in a capture");
    return run_until([] {
        for (Stream *one : streams)
            if (!one->queue.empty()) return false;
        return default_stream.queue.empty();
    });
}

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

