// Enough of CUDA for the scan kernels to run on a CPU: the threads of a block
// are contexts that take turns at every barrier and shuffle.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define SCAN_GRID_CONSTANT
#define SCAN_SHARED_MEMORY(type, name) \
  type* const name = reinterpret_cast<type*>(cuda_on_cpu::shared_memory())

struct Index {
  unsigned x = 0;
};
inline Index threadIdx, blockIdx;

namespace cuda_on_cpu {

constexpr unsigned kWarp = 32;

enum class Wait { kWarp, kBlock, kDone };

struct Machine {
  ucontext_t scheduler;
  std::vector<ucontext_t> threads;
  std::vector<std::vector<char>> stacks;
  std::vector<Wait> waits;
  std::vector<double> exchange;  // wide enough for a float, too
  std::vector<unsigned char> shared;
  std::function<void()> kernel;
  unsigned current = 0;
};

inline Machine& machine() {
  static Machine instance;
  return instance;
}

inline void* shared_memory() { return machine().shared.data(); }

// Returns once the threads that this one waits for have come as far.
inline void wait_for(Wait wait) {
  Machine& m = machine();
  const unsigned self = m.current;
  m.waits[self] = wait;
  swapcontext(&m.threads[self], &m.scheduler);
  threadIdx.x = self;
}

inline void enter_thread() {
  Machine& m = machine();
  threadIdx.x = m.current;
  m.kernel();
  m.waits[m.current] = Wait::kDone;
}

// One warp as far as it comes without the others, so that what only a barrier
// would make safe shows as a wrong result.
inline void run_warp(unsigned warp) {
  Machine& m = machine();
  const unsigned first = warp * kWarp;
  do {
    for (unsigned t = first; t < first + kWarp; ++t) {
      m.current = t;
      swapcontext(&m.scheduler, &m.threads[t]);
    }
    for (unsigned t = first; t < first + kWarp; ++t) {
      if (m.waits[t] != m.waits[first]) std::abort();  // lanes came apart
    }
  } while (m.waits[first] == Wait::kWarp);
}

// Runs a kernel block by block, warps first to last and last to first in
// turns. Shared memory starts as NaN.
inline void launch(int64_t blocks, unsigned threads, size_t shared_bytes,
                   std::function<void()> kernel) {
  Machine& m = machine();
  m.kernel = std::move(kernel);
  m.threads.resize(threads);
  m.exchange.resize(threads);
  m.stacks.assign(threads, std::vector<char>(64 * 1024));
  for (int64_t b = 0; b < blocks; ++b) {
    blockIdx.x = static_cast<unsigned>(b);
    m.shared.assign(shared_bytes, 0xff);
    m.waits.assign(threads, Wait::kBlock);
    for (unsigned t = 0; t < threads; ++t) {
      getcontext(&m.threads[t]);
      m.threads[t].uc_stack.ss_sp = m.stacks[t].data();
      m.threads[t].uc_stack.ss_size = m.stacks[t].size();
      m.threads[t].uc_link = &m.scheduler;
      makecontext(&m.threads[t], enter_thread, 0);
    }
    const unsigned warps = threads / kWarp;
    for (unsigned round = 0; m.waits[0] != Wait::kDone; ++round) {
      for (unsigned w = 0; w < warps; ++w) {
        run_warp(round % 2 == 0 ? w : warps - 1 - w);
      }
      for (unsigned t = 1; t < threads; ++t) {
        if (m.waits[t] != m.waits[0]) std::abort();  // a barrier was missed
      }
    }
  }
}

template <typename T>
T shuffle(T value, int source, bool inside) {
  Machine& m = machine();
  m.exchange[threadIdx.x] = static_cast<double>(value);
  wait_for(Wait::kWarp);
  const T other = static_cast<T>(m.exchange[inside ? source : threadIdx.x]);
  wait_for(Wait::kWarp);
  return other;
}

}  // namespace cuda_on_cpu

inline void __syncthreads() {
  cuda_on_cpu::wait_for(cuda_on_cpu::Wait::kBlock);
}

template <typename T>
T __shfl_up_sync(unsigned, T value, int distance, int width) {
  const int self = static_cast<int>(threadIdx.x);
  return cuda_on_cpu::shuffle(value, self - distance,
                              self % width >= distance);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, int distance, int width) {
  const int self = static_cast<int>(threadIdx.x);
  return cuda_on_cpu::shuffle(value, self + distance,
                              self % width + distance < width);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask, int) {
  const int self = static_cast<int>(threadIdx.x);
  return cuda_on_cpu::shuffle(value, self ^ mask, true);
}
