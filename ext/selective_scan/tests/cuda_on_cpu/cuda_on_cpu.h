// Enough of CUDA for its operators to run on CPU tensors: the threads of a
// block are contexts that take turns at every barrier and shuffle. To be
// included before each of their sources.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define SCAN_GRID_CONSTANT
#define SCAN_SHARED_MEMORY(type, name) \
  type* const name = reinterpret_cast<type*>(cuda_on_cpu::shared_memory())

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern "C" {
inline dim3 threadIdx, blockIdx, blockDim, gridDim;
}

using std::exp;
using std::min;
using std::sqrt;

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

using __half = c10::Half;
using __nv_bfloat16 = c10::BFloat16;
struct alignas(4) __half2 {
  __half x, y;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline float __half2float(__half x) { return x; }
inline __half __float2half_rn(float x) { return x; }
inline float2 __half22float2(__half2 x) { return {x.x, x.y}; }
inline __half2 __float22half2_rn(float2 x) { return {x.x, x.y}; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 x) { return {x.x, x.y}; }

inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(x); }

namespace selective_scan::cuda {
inline float exp2_of(float x) { return std::exp2(x); }
inline float reciprocal_of(float x) { return 1.f / x; }
inline float2 halves_of(__nv_bfloat162 x) { return {x.x, x.y}; }
inline unsigned thread_index() { return threadIdx.x; }
}  // namespace selective_scan::cuda

namespace cuda_on_cpu {

// Defines operators of its own: those for CUDA may be real ones here.
struct Definitions {
  torch::Library& library;

  template <typename Function>
  void impl(const char* name, Function* function) {
    library.def(name, function);
  }
};
#undef TORCH_LIBRARY_IMPL
#define TORCH_LIBRARY_IMPL(name, device, m)                  \
  static void define_operators(cuda_on_cpu::Definitions m);  \
  TORCH_LIBRARY_FRAGMENT(cuda_on_cpu, library) {             \
    define_operators({library});                             \
  }                                                          \
  static void define_operators(cuda_on_cpu::Definitions m)

constexpr unsigned kWarp = 32;

enum class Wait { kWarp, kBlock, kDone };

struct Thread {
  jmp_buf place;
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(64 * 1024);
};

struct Machine {
  jmp_buf scheduler;
  std::deque<Thread> threads;  // which outlive a launch
  std::vector<Wait> waits;
  std::vector<double> exchange[2];  // wide enough for a float, too
  std::vector<unsigned> shuffles;   // of each thread so far
  std::vector<unsigned char> shared;
  std::function<void()> kernel;
  unsigned current = 0;
};

inline Machine& machine() {
  static Machine instance;
  return instance;
}

inline void* shared_memory() { return machine().shared.data(); }

// Unlike swapcontext, a jump leaves the signals alone, which is no system call.
inline void wait_for(Wait wait) {
  Machine& m = machine();
  const unsigned self = m.current;
  m.waits[self] = wait;
  if (_setjmp(m.threads[self].place) == 0) _longjmp(m.scheduler, 1);
  threadIdx.x = self;
}

inline void enter_thread() {
  Machine& m = machine();
  for (;;) {
    wait_for(Wait::kDone);
    m.kernel();
  }
}

// Runs a thread until it waits.
inline void resume(unsigned thread) {
  Machine& m = machine();
  m.current = thread;
  if (_setjmp(m.scheduler) == 0) _longjmp(m.threads[thread].place, 1);
}

inline void add_thread() {
  Machine& m = machine();
  Thread& thread = m.threads.emplace_back();
  m.current = static_cast<unsigned>(m.threads.size() - 1);
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = thread.stack.data();
  thread.context.uc_stack.ss_size = thread.stack.size();
  makecontext(&thread.context, enter_thread, 0);
  if (_setjmp(m.scheduler) == 0) setcontext(&thread.context);
}

// One warp as far as it comes without the others, so that what only a barrier
// would make safe shows as a wrong result.
inline void run_warp(unsigned warp) {
  Machine& m = machine();
  const unsigned first = warp * kWarp;
  do {
    for (unsigned t = first; t < first + kWarp; ++t) {
      resume(t);
    }
    for (unsigned t = first; t < first + kWarp; ++t) {
      if (m.waits[t] != m.waits[first]) std::abort();  // lanes came apart
    }
  } while (m.waits[first] == Wait::kWarp);
}

// Runs a kernel block by block, warps first to last and last to first in
// turns. Shared memory starts as NaN.
inline void launch(dim3 grid, unsigned threads, size_t shared_bytes,
                   std::function<void()> kernel) {
  Machine& m = machine();
  gridDim = grid;
  blockDim = {threads};
  m.kernel = std::move(kernel);
  m.shuffles.assign(threads, 0);
  for (auto& values : m.exchange) values.resize(threads);
  m.waits.resize(std::max<size_t>(threads, m.waits.size()));
  while (m.threads.size() < threads) add_thread();
  for (unsigned b = 0; b < grid.x * grid.y * grid.z; ++b) {
    blockIdx = {b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y};
    m.shared.assign(shared_bytes, 0xff);
    m.waits.assign(threads, Wait::kBlock);
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

// Two exchanges take turns: no lane is further ahead than one shuffle.
template <typename T>
T shuffle(T value, int source, bool inside) {
  Machine& m = machine();
  const unsigned self = threadIdx.x;
  auto& exchange = m.exchange[m.shuffles[self]++ % 2];
  exchange[self] = static_cast<double>(value);
  wait_for(Wait::kWarp);
  return static_cast<T>(exchange[inside ? source : self]);
}

}  // namespace cuda_on_cpu

namespace selective_scan::cuda {

template <auto kKernel, typename Operands>
void launch(dim3 grid, unsigned threads, size_t shared_bytes,
            const Operands& operands) {
  cuda_on_cpu::launch(grid, threads, shared_bytes,
                      [&] { kKernel(operands); });
}

}  // namespace selective_scan::cuda

inline void __syncwarp() { cuda_on_cpu::wait_for(cuda_on_cpu::Wait::kWarp); }
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
T __shfl_xor_sync(unsigned, T value, int mask, int = 32) {
  const int self = static_cast<int>(threadIdx.x);
  return cuda_on_cpu::shuffle(value, self ^ mask, true);
}
