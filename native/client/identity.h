// Identities of updates: which (channel, sequence) the next write, truncate or remove goes under.
//
// A channel has one update in flight at a time; its sequence grows with each. Storage remembers the
// last sequence per channel, so few channels, used again and again, keep its table small: the pool
// hands out the channel released last. Thread safe.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "base/ids.h"

namespace fs3::client {

class Identities {
 public:
  // REQUIRES: client_id has 16 bytes.
  explicit Identities(const std::string& client_id);
  // A fresh identity on a channel nobody uses.
  UpdateIdentity acquire();
  // The next identity of a channel that the caller still holds.
  UpdateIdentity next(uint32_t channel);
  void release(uint32_t channel);
  size_t channels() const;

 private:
  std::array<uint8_t, 16> client_id_{};
  mutable std::mutex mutex_;
  std::vector<uint64_t> sequences_;  // last one used, by channel
  std::vector<uint32_t> free_;
};

}  // namespace fs3::client
