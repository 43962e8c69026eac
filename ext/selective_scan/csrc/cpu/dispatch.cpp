// Chooses the instruction set at run time. And memory for the kernels, which
// must not be made in code for one of them: inline functions may be shared.
#include <atomic>
#include <memory>

#include "kernels.h"

namespace selective_scan {

void* scratch_memory(size_t bytes) {
  thread_local std::unique_ptr<char[]> memory;
  thread_local size_t capacity = 0;
  if (capacity < bytes + 64) {
    memory = std::make_unique<char[]>(bytes + 64);
    capacity = bytes + 64;
  }
  void* start = memory.get();
  size_t space = capacity;
  return std::align(64, bytes, start, space);
}

}  // namespace selective_scan

namespace selective_scan::cpu {
namespace {

// Best first.
const Variant* find_variant(const std::string& name) {
  const auto wanted = [&](const char* other) {
    return name == "best" || name == other;
  };
#if defined(SCAN_X86)
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw");
  if (avx512 && wanted("avx512")) return &avx512_variant();
  if (avx2 && wanted("avx2")) return &avx2_variant();
#endif
  return wanted("plain") ? &plain_variant() : nullptr;
}

std::atomic<const Variant*>& chosen() {
  static std::atomic<const Variant*> variant{find_variant("best")};
  return variant;
}

}  // namespace

const Variant& current_variant() { return *chosen().load(); }

bool set_variant(const std::string& name) {
  const Variant* found = find_variant(name);
  if (found != nullptr) chosen().store(found);
  return found != nullptr;
}

}  // namespace selective_scan::cpu
