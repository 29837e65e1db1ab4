// What a storage server counts. Plain numbers with one writer: the reactor's thread. Readers get a
// copy made there (StorageServer::statistics).
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace fs3::storage {

// Log-spaced: two buckets per doubling, from 1 us to about 33 s. Bucket 0 holds everything below
// 1 us; bucket b > 0 holds durations up to upper_ns(b).
class LatencyHistogram {
 public:
  static constexpr size_t kBuckets = 52;

  static constexpr int64_t upper_ns(size_t bucket) {
    int64_t octave = int64_t{1000} << (bucket / 2);
    return bucket % 2 == 0 ? octave : octave + octave / 2;
  }
  static constexpr size_t bucket_of(int64_t duration_ns) {
    if (duration_ns <= 1000) return 0;
    uint64_t us = (static_cast<uint64_t>(duration_ns) + 999) / 1000;
    size_t octave = std::bit_width(us - 1) - 1;  // 2^octave < us <= 2^(octave + 1), or us = 2
    size_t bucket = 2 * octave;
    while (bucket + 1 < kBuckets && duration_ns > upper_ns(bucket)) ++bucket;
    return bucket;
  }

  void add(int64_t duration_ns) {
    ++counts_[bucket_of(duration_ns)];
    sum_ns_ += duration_ns > 0 ? static_cast<uint64_t>(duration_ns) : 0;
  }
  const std::array<uint64_t, kBuckets>& counts() const { return counts_; }
  uint64_t sum_ns() const { return sum_ns_; }

 private:
  std::array<uint64_t, kBuckets> counts_{};
  uint64_t sum_ns_ = 0;
};

struct OperationMetrics {
  uint64_t count = 0;   // ended, whatever the outcome
  uint64_t errors = 0;  // of these, with a status that is not ok
  uint64_t bytes = 0;   // moved by the successful ones
  LatencyHistogram latency;

  void end(int64_t duration_ns, bool ok, uint64_t moved) {
    ++count;
    if (ok)
      bytes += moved;
    else
      ++errors;
    latency.add(duration_ns);
  }
};

struct Metrics {
  OperationMetrics read;     // client reads, request to reply
  OperationMetrics write;    // client updates at the head, request to reply
  OperationMetrics receive;  // updates from the predecessor, request to reply
  OperationMetrics forward;  // updates to the successor, send to answer
  OperationMetrics stage;    // in the engine; with the commit where this is the tail
  OperationMetrics commit;   // in the engine
  OperationMetrics disk_read;
  uint64_t denied = 0;           // requests without a sufficient capability
  uint64_t bad_requests = 0;     // requests with a field out of range
  uint64_t checksum_errors = 0;  // bytes from disk or network that did not fit
};

}  // namespace fs3::storage
