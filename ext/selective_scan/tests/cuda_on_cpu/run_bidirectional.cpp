// A plain C interface to the kernels of the bidirectional scan with one
// state, run on the CPU as their launchers run them.
#include "cuda_on_cpu.h"

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/bidirectional_backward.cuh"
#include "../../csrc/cuda/bidirectional_forward.cuh"
#include "../../csrc/cuda/bidirectional_totals.cuh"

namespace {

using namespace selective_scan::cuda;

float* shared() { return static_cast<float*>(cuda_on_cpu::shared_memory()); }

template <typename T, typename Block>
void run(Bidirectional<T> g, const Plan& plan, Block block) {
  const dim3 grid{static_cast<unsigned>(plan.blocks),
                  static_cast<unsigned>(plan.chunks),
                  static_cast<unsigned>(g.batch)};
  for (const bool summing : {true, false}) {
    if (summing && plan.chunks == 1) continue;
    g.summing = summing;
    cuda_on_cpu::launch(grid, plan.threads, plan.shared, [&] { block(g); });
  }
}

// Sizes: batch, channels, length, rank, directions, channels last,
// multiprocessors, bytes of shared memory, batch stride and leading stride of
// u and of grad, batch, set, row and token strides of proj, paired rows.
// Pointers: u, proj, weight, bias, A, D, grad, then those written: y, grad_u,
// grad_proj, grad_weight, grad_bias, grad_A, grad_D. Returns the chunks of the
// forward plan, and 0 where it finds none.
template <typename T>
int run_type(const int64_t* sizes, void* const* pointers) {
  Bidirectional<T> g{};
  g.batch = static_cast<int>(sizes[0]);
  g.channels = static_cast<int>(sizes[1]);
  g.length = static_cast<int>(sizes[2]);
  g.rank = static_cast<int>(sizes[3]);
  g.directions = static_cast<int>(sizes[4]);
  const bool channels_last = sizes[5] != 0;
  const Device device{static_cast<int>(sizes[6]), static_cast<int>(sizes[7])};
  g.u_batch = sizes[8];
  g.u_lead = static_cast<int>(sizes[9]);
  g.grad_batch = sizes[10];
  g.grad_lead = static_cast<int>(sizes[11]);
  g.proj_batch = sizes[12];
  g.proj_set = static_cast<int>(sizes[13]);
  g.proj_row = static_cast<int>(sizes[14]);
  g.proj_token = static_cast<int>(sizes[15]);
  g.paired_rows = sizes[16] != 0;
  const auto values = [&](int i) { return static_cast<T*>(pointers[i]); };
  const auto floats = [&](int i) { return static_cast<float*>(pointers[i]); };
  g.u = values(0);
  g.proj = values(1);
  g.weight = floats(2);
  g.bias = floats(3);
  g.A = floats(4);
  g.D = floats(5);
  g.grad = values(6);
  g.y = values(7);
  g.grad_u = values(8);
  int chunks = 0;
  for (const bool backward : {false, true}) {
    const Plan plan = make_plan(g.batch, g.channels, g.length, g.rank,
                                g.directions, backward, device);
    if (plan.threads == 0) return 0;
    if (!backward) chunks = plan.chunks;
    const Workspace space =
        make_workspace(plan, g.batch, g.length, g.directions, backward);
    std::vector<float> memory(space.total() + 4, NAN);
    use_plan(g, plan, space, memory.data());
    if (!backward) {
      run(g, plan, [&](const Bidirectional<T>& x) {
        channels_last ? forward_block<T, true>(x, shared())
                      : forward_block<T, false>(x, shared());
      });
      continue;
    }
    run(g, plan, [&](const Bidirectional<T>& x) {
      channels_last ? backward_block<T, true>(x, shared())
                    : backward_block<T, false>(x, shared());
    });
    Totals<T> totals = make_totals(g, plan);
    totals.proj = values(9);
    totals.weight = floats(10);
    totals.bias = floats(11);
    totals.A = floats(12);
    totals.D = floats(13);
    cuda_on_cpu::launch(totals_grid(totals), kTotalThreads,
                        kTotalThreads * sizeof(float),
                        [&] { totals_block(totals, shared()); });
  }
  return chunks;
}

}  // namespace

// type: 0 float32, 1 float16, 2 bfloat16.
extern "C" int run_bidirectional(int type, const int64_t* sizes,
                                 void* const* pointers) {
  if (type == 1) return run_type<__half>(sizes, pointers);
  if (type == 2) return run_type<__nv_bfloat16>(sizes, pointers);
  return run_type<float>(sizes, pointers);
}
