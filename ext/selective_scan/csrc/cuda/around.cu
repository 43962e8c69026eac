#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "gated_norm.cuh"
#include "launch.h"
#include "wavelet.cuh"

namespace selective_scan::cuda {
namespace {

template <typename T, int side>
void launch_side(const Wavelet<T>& w, bool gradient) {
  const auto blocks = static_cast<unsigned>(w.blocks);
  gradient
      ? launch<wavelet_gradient<T, side>>(blocks, w.threads, w.bytes, w)
      : launch<wavelet<T, side>>(blocks, w.threads, w.bytes, w);
}

template <typename T, typename P, bool kChannelsLast>
void launch_layout(const GatedNorm<T, P>& n, bool backward) {
  backward ? launch<gated_norm_backward<T, P, kChannelsLast>>(
                 n.blocks, 32 * n.warps, n.bytes, n)
           : launch<gated_norm<T, P, kChannelsLast>>(n.blocks, 32 * n.warps,
                                                     n.bytes, n);
}

}  // namespace

template <typename T>
void launch_wavelet(const Wavelet<T>& w, bool gradient) {
  if (w.side == 3) return launch_side<T, 3>(w, gradient);
  if (w.side == 5) return launch_side<T, 5>(w, gradient);
  launch_side<T, 7>(w, gradient);
}

template <typename T, typename P>
void launch_gated_norm(const GatedNorm<T, P>& n, bool backward) {
  n.channels_last ? launch_layout<T, P, true>(n, backward)
                  : launch_layout<T, P, false>(n, backward);
}

template void launch_wavelet(const Wavelet<float>&, bool);
template void launch_wavelet(const Wavelet<c10::Half>&, bool);
template void launch_wavelet(const Wavelet<c10::BFloat16>&, bool);
template void launch_gated_norm(const GatedNorm<float, float>&, bool);
template void launch_gated_norm(const GatedNorm<c10::Half, float>&, bool);
template void launch_gated_norm(const GatedNorm<c10::BFloat16, float>&, bool);
template void launch_gated_norm(const GatedNorm<double, double>&, bool);

}  // namespace selective_scan::cuda
