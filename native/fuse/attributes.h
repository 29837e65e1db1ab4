// Small conversions between nanoseconds, timeouts and the protocol's structures.
#pragma once

#include <cstdint>

#include "fuse/kernel.h"

namespace fs3::fuse {

constexpr int64_t kNsPerSecond = 1'000'000'000;

// Nanoseconds since the epoch as the kernel wants them; floor for times before 1970.
struct SplitTime {
  uint64_t seconds;
  uint32_t nanoseconds;
};
constexpr SplitTime split_time(int64_t ns) {
  int64_t seconds = ns / kNsPerSecond;
  int64_t rest = ns % kNsPerSecond;
  if (rest < 0) {
    rest += kNsPerSecond;
    --seconds;
  }
  return {static_cast<uint64_t>(seconds), static_cast<uint32_t>(rest)};
}
// The nearest time that a 64-bit count can say (years 1677 to 2262): utimensat(2) takes any, and
// file systems keep the nearest they have.
constexpr int64_t join_time(uint64_t seconds, uint32_t nanoseconds) {
  constexpr int64_t kLatest = INT64_MAX / kNsPerSecond - 5;  // the nanoseconds may be up to 4 s
  int64_t signed_seconds = static_cast<int64_t>(seconds);
  if (signed_seconds > kLatest) return INT64_MAX;
  if (signed_seconds < -kLatest) return INT64_MIN;
  return signed_seconds * kNsPerSecond + nanoseconds;
}

// How long the kernel may believe names and attributes.
constexpr void set_entry_timeout(fuse_entry_out& out, int64_t name_ns, int64_t attributes_ns) {
  SplitTime name = split_time(name_ns), attributes = split_time(attributes_ns);
  out.entry_valid = name.seconds;
  out.entry_valid_nsec = name.nanoseconds;
  out.attr_valid = attributes.seconds;
  out.attr_valid_nsec = attributes.nanoseconds;
}

// The reply of STATX: what GETATTR would say, believed for `ttl_ns`, and the time of birth.
StatxOut statx_of(const fuse_attr& basic, int64_t btime_ns, int64_t ttl_ns);

}  // namespace fs3::fuse
