/* Graphs: what was queued on a stream while it was captured, to be run as often as one likes. */
#include "streams.h"

using namespace emulated;

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
