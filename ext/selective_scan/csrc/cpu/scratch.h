// Memory that a thread works in.
#pragma once

#include <cstddef>
#include <memory>

namespace selective_scan {

// This thread's scratch, aligned to 64 bytes. It is kept from call to call,
// as mapping fresh memory takes longer than a small scan.
inline void* scratch_memory(size_t bytes) {
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
