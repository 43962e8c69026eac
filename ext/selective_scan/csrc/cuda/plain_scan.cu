#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "launch.h"
#include "plain_scan.cuh"

namespace selective_scan::cuda {

template <typename T, typename P>
void launch_plain_scan(const PlainScan<T, P>& o, bool backward) {
  with_layout(o, [&](auto layout) {
    using L = decltype(layout);
    const auto blocks = static_cast<unsigned>(o.batch * L::blocks(o));
    const int bytes = sizeof(P) * L::kShared;
    if (!backward) {
      return launch<plain_forward<T, P, L>>(blocks, kThreads, bytes, o);
    }
    if (L::chunks(o) > 1) {
      launch<plain_forward<T, P, L>>(blocks, kThreads, bytes, o);
    }
    launch<plain_backward<T, P, L>>(blocks, kThreads, bytes, o);
  });
}

template void launch_plain_scan(const PlainScan<float, float>&, bool);
template void launch_plain_scan(const PlainScan<c10::Half, float>&, bool);
template void launch_plain_scan(const PlainScan<c10::BFloat16, float>&, bool);
template void launch_plain_scan(const PlainScan<double, double>&, bool);

}  // namespace selective_scan::cuda
