#include "bidirectional_backward.cuh"
#include "bidirectional_forward.cuh"
#include "launch.h"

namespace selective_scan::cuda {
namespace {

template <auto kKernel, typename T>
void launch_passes(Bidirectional<T> g) {
  const dim3 grid(g.blocks, g.chunks, g.batch);
  for (const bool summing : {true, false}) {
    if (summing && g.chunks == 1) continue;
    g.summing = summing;
    launch<kKernel>(grid, g.threads, g.shared, g);
  }
}

}  // namespace

template <typename T>
void launch_bidirectional(const Bidirectional<T>& g, bool backward) {
  if (!backward) {
    return g.channels_last ? launch_passes<bidirectional_forward<T, true>>(g)
                           : launch_passes<bidirectional_forward<T, false>>(g);
  }
  g.channels_last ? launch_passes<bidirectional_backward<T, true>>(g)
                  : launch_passes<bidirectional_backward<T, false>>(g);
  launch<bidirectional_totals<T>>(totals_grid(g), kTotalThreads,
                                  4 * kTotalThreads, g);
}

template void launch_bidirectional(const Bidirectional<float>&, bool);
template void launch_bidirectional(const Bidirectional<c10::Half>&, bool);
template void launch_bidirectional(const Bidirectional<c10::BFloat16>&, bool);

}  // namespace selective_scan::cuda
