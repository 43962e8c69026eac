// Threads that take work from each other.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

#include "../common/scan_shape.h"

namespace selective_scan {

// Work below which starting threads takes longer than it saves.
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

// How long a piece of work is, at most and at least where there is so much
// left. It begins at a multiple of `unit`, and so should its limits be.
struct Pieces {
  int64_t unit, least, most;
};

// Calls work(begin, end) for pieces that make up 0 to count. A thread begins
// with a share of its own, the same at every call, which may still lie in its
// cache. Once done it helps the others, so that nobody waits long for a thread
// whose core is slower or busy with something else; for that, pieces get
// shorter towards the end of a share. Results must not depend on the pieces.
template <typename Work>
void share_work(int64_t count, const Pieces& pieces, int64_t threads,
                const Work& work) {
  const int64_t units = ceil_div(count, pieces.unit);
  const int64_t least = ceil_div(pieces.least, pieces.unit);
  const int64_t most = std::max(pieces.most / pieces.unit, least);
  threads = std::min(threads, units);
  if (threads <= 1) {
    for (int64_t begin = 0; begin < units; begin += most) {
      work(begin * pieces.unit, std::min((begin + most) * pieces.unit, count));
    }
    return;
  }
  const std::unique_ptr<Share[]> shares(new Share[threads]);
  for (int64_t t = 0; t < threads; ++t) {
    shares[t].next = units * t / threads;
    shares[t].end = units * (t + 1) / threads;
  }
  at::parallel_for(0, threads, 1, [&](int64_t self, int64_t) {
    for (int64_t i = 0; i < threads; ++i) {
      Share& share = shares[(self + i) % threads];
      int64_t begin = share.next.load(std::memory_order_relaxed);
      while (begin < share.end) {
        const int64_t left = share.end - begin;
        const int64_t half = std::max(ceil_div(left, 2), least);
        const int64_t end = begin + std::min({half, most, left});
        if (share.next.compare_exchange_weak(begin, end,
                                             std::memory_order_relaxed)) {
          work(begin * pieces.unit, std::min(end * pieces.unit, count));
          begin = share.next.load(std::memory_order_relaxed);
        }
      }
    }
  });
}

// The same for tasks, `grain` of which are worth a thread.
template <typename Work>
void share_tasks(int64_t tasks, int64_t grain, const Work& work) {
  const int64_t threads =
      std::min<int64_t>(at::get_num_threads(), ceil_div(tasks, grain));
  const int64_t all = std::max<int64_t>(1, tasks);
  share_work(tasks, {1, std::min(grain, all), all}, threads, work);
}

}  // namespace selective_scan
