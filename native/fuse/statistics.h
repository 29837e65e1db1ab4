// Counts and latency histograms per operation.
//
// Thread safety: everything may be called from any thread; counters are relaxed atomics.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

namespace fs3::fuse {

// Bucket i counts latencies in [2^i, 2^(i+1)) microseconds; bucket 0 everything below 2 us, the
// last one everything from 2^26 us (67 s) on.
constexpr size_t kLatencyBuckets = 27;

constexpr size_t latency_bucket(int64_t latency_ns) {
  uint64_t us = latency_ns <= 0 ? 0 : static_cast<uint64_t>(latency_ns) / 1000;
  size_t bucket = us < 2 ? 0 : static_cast<size_t>(std::bit_width(us)) - 1;
  return bucket < kLatencyBuckets ? bucket : kLatencyBuckets - 1;
}

// "lookup", "readdirplus"; "other" for what has no name.
std::string_view operation_name(uint32_t opcode);

struct OperationSample {
  std::string_view name;
  uint64_t count = 0;
  uint64_t errors = 0;
  uint64_t total_ns = 0;
  std::array<uint64_t, kLatencyBuckets> buckets{};
};

class OperationStatistics {
 public:
  void record(uint32_t opcode, int64_t latency_ns, bool error);
  // Operations that happened at least once.
  std::vector<OperationSample> sample() const;

 private:
  static constexpr size_t kOperations = 64;
  struct Cell {
    std::atomic<uint64_t> count{0}, errors{0}, total_ns{0};
    std::array<std::atomic<uint64_t>, kLatencyBuckets> buckets{};
  };
  std::array<Cell, kOperations> cells_{};
};

}  // namespace fs3::fuse
