// A plain C interface to the general scan kernels, in float32 and float64.
#include "cuda_on_cpu.h"

// After the definitions that stand in for CUDA's.
#include "../../csrc/cuda/scan_kernels.cuh"

namespace {

using namespace selective_scan;
using cuda_on_cpu::Tensor;

ChannelStrides channels(const Tensor& t) {
  return {t.strides[0], t.strides[1], t.strides[2]};
}
RowStrides rows(const Tensor& t) {
  return {t.strides[0], t.strides[1], t.strides[2], t.strides[3]};
}

// Tensors: u, delta, dt, B, C, grad, A, D, bias, dt_proj, then those written:
// y, grad_u, grad_delta, gradients of the rows, of the parameters.
template <typename P, typename L>
void run(const ScanShape& shape, const Tensor* t) {
  const int64_t blocks = L::blocks(shape);
  const int64_t states = shape.directions * shape.batch * L::chunks(shape) *
                         shape.state * shape.channels;
  const int64_t sums = shape.batch * shape.directions * shape.groups *
                       (shape.rank + 2 * shape.state) * shape.length;
  // Where there are groups, a block writes the rows of its own alone.
  std::vector<P> partials(blocks * sums, shape.rank > 0 ? NAN : 0);
  cuda::Operands<P, P> o;
  o.shape = shape;
  o.u = t[0];
  o.delta = t[1];
  o.dt = t[2];
  o.B = t[3];
  o.C = t[4];
  o.grad = t[5];
  o.A = t[6];
  o.D = t[7];
  o.bias = t[8];
  o.dt_proj = t[9];
  o.y = t[10];
  o.u_strides = channels(t[0]);
  o.delta_strides = channels(t[1]);
  o.dt_strides = rows(t[2]);
  o.B_strides = rows(t[3]);
  o.C_strides = rows(t[4]);
  o.grad_strides = channels(t[5]);
  o.y_strides = channels(t[10]);
  o.staged_rows = cuda::staged_rows<P, L>(shape);
  cuda::Gradients<P, P> g;
  g.u = t[11];
  g.delta = t[12];
  g.u_strides = channels(t[11]);
  g.delta_strides = channels(t[12]);
  g.rows = partials.data();
  g.parameters = t[14];
  for (const bool backward : {false, true}) {
    std::vector<P> carries((backward ? 2 : 1) * states);
    o.carries = carries.data();
    const auto kernel = [&] {
      backward ? cuda::backward_kernel<P, P, L>(o, g)
               : cuda::forward_kernel<P, P, L>(o);
    };
    cuda_on_cpu::launch(
        {static_cast<unsigned>(shape.batch * blocks)}, cuda::kThreads,
        sizeof(P) * L::shared(backward ? 2 : 1, o.staged_rows), kernel);
  }
  P* const total = t[13];
  for (int64_t i = 0; i < blocks * sums; ++i) total[i % sums] += partials[i];
}

using Run = void (*)(const ScanShape&, const Tensor*);
constexpr Run kRuns[2][3] = {
    {run<float, cuda::ShortLayout>, run<float, cuda::MiddleLayout>,
     run<float, cuda::LongLayout>},
    {run<double, cuda::ShortLayout>, run<double, cuda::MiddleLayout>,
     run<double, cuda::LongLayout>}};

}  // namespace

// Sizes: batch, channels, length, state, rank, directions, groups, softplus,
// reverse, layout. Type: 0 for float32, 1 for float64.
extern "C" void run_general(int type, const int64_t* s, const Tensor* tensors) {
  const ScanShape shape{s[0], s[1], s[2], s[3],      s[4],
                        s[5], s[6], s[7] != 0, s[8] != 0};
  kRuns[type][s[9]](shape, tensors);
}
