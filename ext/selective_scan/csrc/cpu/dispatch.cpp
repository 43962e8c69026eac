// Chooses the instruction set at run time.
#include <atomic>

#include "kernels.h"
#include "../inference/feature_map_kernels.h"

#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <immintrin.h>
#include <intrin.h>
#endif

namespace selective_scan::cpu {
namespace {

#if defined(__x86_64__) || defined(__i386__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw");
}
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
// Bits of cpuid leaves 1 and 7, and of xcr0, by Intel's manual.
bool has_bits(int leaf, int reg, unsigned bits) {
  int info[4];
  __cpuidex(info, leaf, 0);
  return (static_cast<unsigned>(info[reg]) & bits) == bits;
}
bool os_saves(unsigned long long bits) {
  return has_bits(1, 2, 1u << 27) && (_xgetbv(0) & bits) == bits;
}
bool has_avx2() {
  return os_saves(0x6) && has_bits(1, 2, (1u << 12) | (1u << 29)) &&
         has_bits(7, 1, 1u << 5);
}
bool has_avx512() {
  return has_avx2() && os_saves(0xe6) &&
         has_bits(7, 1, (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31));
}
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
#endif

const Kernels* find(Variant variant, Storage storage) {
  const Kernels* found = nullptr;
  if (variant == Variant::kAvx512) found = avx512_kernels(storage);
  if (variant == Variant::kAvx2) found = avx2_kernels(storage);
  return found != nullptr ? found : plain_kernels(storage);
}

std::atomic<Variant>& chosen() {
  static std::atomic<Variant> variant{best_variant()};
  return variant;
}

}  // namespace

Variant best_variant() {
  if (has_avx512() && avx512_kernels(Storage::kFloat) != nullptr) {
    return Variant::kAvx512;
  }
  if (has_avx2() && avx2_kernels(Storage::kFloat) != nullptr) {
    return Variant::kAvx2;
  }
  return Variant::kPlain;
}

Variant current_variant() { return chosen().load(); }

void set_variant(Variant variant) { chosen().store(variant); }

const char* variant_name(Variant variant) {
  switch (variant) {
    case Variant::kAvx512:
      return "avx512";
    case Variant::kAvx2:
      return "avx2";
    default:
      return "plain";
  }
}

const Kernels& kernels(Storage storage) {
  return *find(current_variant(), storage);
}

const MapKernels& map_kernels() {
  const MapKernels* found = nullptr;
  if (current_variant() == Variant::kAvx512) found = avx512_map_kernels();
  if (current_variant() == Variant::kAvx2) found = avx2_map_kernels();
  return found != nullptr ? *found : *plain_map_kernels();
}

}  // namespace selective_scan::cpu
