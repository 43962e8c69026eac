// A plain C interface to the CUDA kernels, run on the CPU in float32 and
// float64. Arrays of sizes and strides come in the order of the structs.
#include "cuda_on_cpu.h"

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/scan_kernels.cuh"

namespace {

using namespace selective_scan;

ChannelStrides channel_strides(const int64_t* s) { return {s[0], s[1], s[2]}; }
RowStrides row_strides(const int64_t* s) { return {s[0], s[1], s[2], s[3]}; }

// Pointers: u, delta, dt, B, C, grad, A, D, bias, dt_proj, y, grad_u,
// grad_delta, rows, parameters, carries. Strides: u, delta, grad, dt, B, C,
// y, grad_u, grad_delta.
template <typename P, typename L>
void run(const ScanShape& shape, void* const* pointers, const int64_t* strides,
         bool backward) {
  cuda::Operands<P, P> o;
  o.shape = shape;
  const auto in = [&](int i) { return static_cast<const P*>(pointers[i]); };
  const auto out = [&](int i) { return static_cast<P*>(pointers[i]); };
  o.u = in(0);
  o.delta = in(1);
  o.dt = in(2);
  o.B = in(3);
  o.C = in(4);
  o.grad = in(5);
  o.A = in(6);
  o.D = in(7);
  o.bias = in(8);
  o.dt_proj = in(9);
  o.y = out(10);
  o.carries = out(15);
  o.u_strides = channel_strides(strides);
  o.delta_strides = channel_strides(strides + 3);
  o.grad_strides = channel_strides(strides + 6);
  o.dt_strides = row_strides(strides + 9);
  o.B_strides = row_strides(strides + 13);
  o.C_strides = row_strides(strides + 17);
  o.y_strides = channel_strides(strides + 21);
  o.staged_rows = cuda::staged_rows<P, L>(shape);
  cuda::Gradients<P, P> g;
  g.u = out(11);
  g.delta = out(12);
  g.u_strides = channel_strides(strides + 24);
  g.delta_strides = channel_strides(strides + 27);
  g.rows = out(13);
  g.parameters = out(14);
  const int tiles = backward ? 2 : 1;
  cuda_on_cpu::launch({static_cast<unsigned>(shape.batch * L::blocks(shape))},
                      cuda::kThreads,
                      sizeof(P) * L::shared(tiles, o.staged_rows), [&] {
                        if (backward) {
                          cuda::backward_kernel<P, P, L>(o, g);
                        } else {
                          cuda::forward_kernel<P, P, L>(o);
                        }
                      });
}

template <typename P>
void run_layout(const ScanShape& shape, int layout, void* const* pointers,
                const int64_t* strides, bool backward) {
  if (layout == 0) {
    run<P, cuda::ShortLayout>(shape, pointers, strides, backward);
  } else if (layout == 1) {
    run<P, cuda::MiddleLayout>(shape, pointers, strides, backward);
  } else {
    run<P, cuda::LongLayout>(shape, pointers, strides, backward);
  }
}

}  // namespace

// sizes: batch, channels, length, state, rank, directions, groups, softplus,
// reverse, layout, float64, backward.
extern "C" void run_scan(const int64_t* sizes, void* const* pointers,
                         const int64_t* strides) {
  ScanShape shape;
  shape.batch = sizes[0];
  shape.channels = sizes[1];
  shape.length = sizes[2];
  shape.state = sizes[3];
  shape.rank = sizes[4];
  shape.directions = sizes[5];
  shape.groups = sizes[6];
  shape.softplus = sizes[7] != 0;
  shape.reverse = sizes[8] != 0;
  const int layout = static_cast<int>(sizes[9]);
  if (sizes[10] != 0) {
    run_layout<double>(shape, layout, pointers, strides, sizes[11] != 0);
  } else {
    run_layout<float>(shape, layout, pointers, strides, sizes[11] != 0);
  }
}

// Blocks of channels and tokens of a chunk in a layout.
extern "C" void layout_sizes(int64_t channels, int64_t groups, int layout,
                             int64_t* blocks, int64_t* chunk) {
  ScanShape shape;
  shape.channels = channels;
  shape.groups = groups;
  if (layout == 0) {
    *blocks = cuda::ShortLayout::blocks(shape);
    *chunk = cuda::ShortLayout::kChunk;
  } else if (layout == 1) {
    *blocks = cuda::MiddleLayout::blocks(shape);
    *chunk = cuda::MiddleLayout::kChunk;
  } else {
    *blocks = cuda::LongLayout::blocks(shape);
    *chunk = cuda::LongLayout::kChunk;
  }
}
