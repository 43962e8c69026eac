// Threads that take work from each other.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "../common/scan_shape.h"

namespace selective_scan {

// Multiply-adds below which starting threads takes longer than it saves.
constexpr int64_t kGrain = 1 << 16;

// Tasks that are worth a thread, of the given work each.
inline int64_t grain(int64_t work_per_task) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work_per_task));
}

// What one thread starts with, on a cache line of its own.
struct alignas(64) Share {
  std::atomic<int64_t> next{0};
  int64_t end = 0;
};

// Calls work(begin, end) for pieces that make up 0 to tasks, `grain` of which
// are worth a thread. A thread begins with a share of its own, the same at
// every call, which may still lie in its cache. Once done it helps the others,
// so that nobody waits long for a thread whose core is slower or busy with
// something else; for that, pieces get shorter towards the end of a share.
// Results must not depend on the pieces.
template <typename Work>
void share_tasks(int64_t tasks, int64_t grain, const Work& work) {
  const int64_t threads =
      std::min<int64_t>(at::get_num_threads(), ceil_div(tasks, grain));
  if (threads <= 1) {
    work(0, tasks);
    return;
  }
  std::vector<Share> shares(static_cast<size_t>(threads));
  for (int64_t t = 0; t < threads; ++t) {
    shares[t].next = tasks * t / threads;
    shares[t].end = tasks * (t + 1) / threads;
  }
  at::parallel_for(0, threads, 1, [&](int64_t self, int64_t) {
    for (int64_t i = 0; i < threads; ++i) {
      Share& share = shares[(self + i) % threads];
      int64_t begin = share.next.load(std::memory_order_relaxed);
      while (begin < share.end) {
        const int64_t half = ceil_div(share.end - begin, 2);
        const int64_t end = std::min(begin + std::max(half, grain), share.end);
        if (share.next.compare_exchange_weak(begin, end,
                                             std::memory_order_relaxed)) {
          work(begin, end);
          begin = share.next.load(std::memory_order_relaxed);
        }
      }
    }
  });
}

}  // namespace selective_scan
