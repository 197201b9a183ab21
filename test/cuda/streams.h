/* What the parts of the run-time share: streams as lists of work, events, graphs. */
#ifndef LLM_STREAMS_H
#define LLM_STREAMS_H

#include "execution.h"

#include <chrono>
#include <deque>
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

constexpr size_t DEVICE_BYTES = 4ull << 30;

extern std::vector<Stream *> streams;

/* The stream of a handle, of which null is one too. */
Stream &resolve(cudaStream_t of);
/* Queues work, or makes it a node of the graph that is captured. */
cudaError_t queue(cudaStream_t to, Work work);

/* Keeps an error as the last one; `why` is what cudaGetErrorString will say. */
cudaError_t keep(cudaError_t error);
cudaError_t refuse(cudaError_t error, const std::string &why);

} // namespace emulated

#endif
