/* Copies that a thread asks for and later waits for. */
#include "threads.h"

using namespace emulated;

void emulated_async_copy(void *to, const void *from, int bytes, int valid) {
    if (bytes != 4 && bytes != 8 && bytes != 16) fail("an asynchronous copy of %d bytes", bytes);
    if (valid < 0 || valid > bytes) fail("an asynchronous copy of %d of %d bytes", valid, bytes);
    if ((uintptr_t)to % bytes || (valid && (uintptr_t)from % bytes))
        fail("an asynchronous copy of %d bytes that is not aligned to them", bytes);
    if (!is_shared((char *)to, bytes)) fail("an asynchronous copy to what is not shared memory");
    fill_nan((char *)to, bytes);
    block.running->copies.push_back({(char *)to, (const char *)from, bytes, valid});
}

void emulated_async_commit() { block.running->groups.push_back(block.running->copies.size()); }

void emulated_async_wait(int n) {
    auto &groups = block.running->groups;
    auto &copies = block.running->copies;
    if ((int)groups.size() <= n) return;
    const size_t last = groups.size() - 1 - n, done = groups[last];
    for (size_t i = 0; i < done; i++) {
        memcpy(copies[i].to, copies[i].from, copies[i].valid);
        memset(copies[i].to + copies[i].valid, 0, copies[i].bytes - copies[i].valid);
    }
    copies.erase(copies.begin(), copies.begin() + done);
    groups.erase(groups.begin(), groups.begin() + last + 1);
    for (size_t &group : groups) group -= done;
}


void emulated_bulk_copy(void *to, int bytes, const void *barrier, std::function<void()> land) {
    if (!is_shared((char *)to, bytes)) fail("a copy of a tile to what is not shared memory");
    fill_nan((char *)to, bytes);
    block.bulk.push_back({barrier, std::move(land)});
    emulated::wake(barrier); // whoever waits for it already
}

void emulated_bulk_land(const void *barrier) {
    std::vector<BulkCopy> others, landing;
    for (BulkCopy &copy : block.bulk)
        (copy.barrier == barrier ? landing : others).push_back(std::move(copy));
    block.bulk = std::move(others);
    for (const BulkCopy &copy : landing) copy.land();
}
