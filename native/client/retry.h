// What a status means for the next attempt, in one place for metadata and data calls.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "base/status.h"

namespace fs3::client {

enum class Retry {
  kNo,          // done, or refused for good
  kSameServer,  // it is busy: same server after a pause
  kElsewhere,   // it could not be reached or is going away: another one
  kReroute,     // it answers for another routing than ours: refresh, then as routing says
};

inline Retry retry_of(uint32_t code) {
  switch (code) {
    case kBusy:
      return Retry::kSameServer;
    case kTimedOut:
    case kConnectionLost:
    case kShuttingDown:
      return Retry::kElsewhere;
    case kChainVersionMismatch:
    case kNotServing:
    case kNotHead:
    case kLeaseExpired:
    case kUnknownTarget:
      return Retry::kReroute;
    default:
      return Retry::kNo;
  }
}

// 1 ms, doubled each time, at most 100 ms: a failover shows as a pause, not as a storm.
inline int64_t backoff_ns(unsigned failures) {
  return 1'000'000ll << std::min(failures, 7u) > 100'000'000ll
             ? 100'000'000ll
             : 1'000'000ll << std::min(failures, 7u);
}

inline Status deadline_passed(std::string_view where, const Status& last) {
  return Status(kTimedOut, where,
                "deadline passed, outcome unknown; last attempt: " +
                    (last.ok() ? std::string("none ended") : last.to_string()));
}

}  // namespace fs3::client
