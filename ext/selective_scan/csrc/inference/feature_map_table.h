// The table of the kernels on maps for one kind of vector.
#pragma once

namespace selective_scan::cpu::SCAN_VARIANT {

template <typename V>
const MapKernels* map_kernel_table() {
  static const MapKernels table = {
      &depthwise_scratch, &depthwise<V>,       &wavelet_scratch,
      &wavelet<V>,        &gate<V>,            kTileRows<V>,
      kPairTile<V>,       &conv_scratch,       &conv<V>,
      &halving_patches<V>, &halving_scratch<V>, &halving<V>,
      &feed_forward_scratch, &filter_rows<V>,  &feed_forward<V>};
  return &table;
}

}  // namespace selective_scan::cpu::SCAN_VARIANT
