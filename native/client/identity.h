// Identities of updates: which (channel, sequence) the next write, truncate or remove goes under.
//
// A channel has one update in flight at a time; its sequence grows with each. Storage remembers the
// last sequence per channel, so few channels, used again and again, keep its table small: the pool
// hands out the channel released last. Thread safe.
//
// A channel whose last outcome on a chunk is unknown stays with that chunk: the chunk's next update
// goes under a higher sequence of the same channel, so the lost one, should it still arrive, is
// older and refused instead of overwriting newer bytes. That holds for as long as this process
// lives, whether the file stays open or not.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"

namespace fs3::client {

class Identities {
 public:
  // REQUIRES: client_id has 16 bytes.
  explicit Identities(const std::string& client_id);
  // A fresh identity for an update of the chunk: on its own channel when it has one, else on one
  // nobody uses.
  UpdateIdentity acquire(ChunkId chunk);
  // The next identity of a channel that the caller still holds.
  UpdateIdentity next(uint32_t channel);
  // The outcome is known.
  void release(uint32_t channel);
  // The outcome on this chunk is unknown. The oldest of very many such chunks lose their channel.
  void keep(ChunkId chunk, uint32_t channel);
  size_t channels() const;

 private:
  std::array<uint8_t, 16> client_id_{};
  mutable std::mutex mutex_;
  std::vector<uint64_t> sequences_;  // last one used, by channel
  std::vector<uint32_t> free_;
  std::map<ChunkId, uint32_t> kept_;  // channel by chunk
  std::deque<ChunkId> kept_order_;    // the same chunks, the oldest first
};

}  // namespace fs3::client
