// Puts together chunks that a predecessor sends whole in several requests
// (ForwardRequest.piece_offset).
//
// Thread safety: none; on the reactor's thread. Bounded: kMaxOpen chunks and kMaxBytes at a time;
// what was not continued for kIdleNs goes. A piece that does not continue its chunk ends the
// assembly, and the sender begins again.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "base/buffer.h"
#include "base/status.h"
#include "storage/codec.h"

namespace fs3::storage {

class Assembler {
 public:
  static constexpr size_t kMaxOpen = 32;
  static constexpr uint64_t kMaxBytes = 1u << 30;
  static constexpr int64_t kIdleNs = 15'000'000'000;

  // The whole chunk with its last piece, nothing before. kMissingBase, kBusy.
  Result<std::optional<Buffer>> add(const ForwardCommand& command, Buffer piece, int64_t now_ns) {
    const auto& event = command.event;
    if (command.piece_offset == 0 && piece.size() == event.length) return std::optional(piece);
    Key key{command.to.target, event.from, event.chunk};
    if (command.piece_offset == 0)
      if (Status s = open(key, event, now_ns); !s.ok()) return s;
    auto it = open_.find(key);
    if (it == open_.end() || it->second.filled != command.piece_offset ||
        it->second.version != event.version || it->second.chain_version != event.chain_version ||
        it->second.update_chain != event.update_chain || it->second.bytes.size() != event.length)
      return Status(kMissingBase, "storage/forward",
                    "piece_offset: " + std::to_string(command.piece_offset) +
                        " does not continue this chunk; send it from 0");
    Entry& entry = it->second;
    std::memcpy(entry.bytes.data() + entry.filled, piece.data(), piece.size());
    entry.filled += static_cast<uint32_t>(piece.size());
    entry.touched_ns = now_ns;
    if (entry.filled < event.length) return std::optional<Buffer>();
    Buffer whole = std::move(entry.bytes);
    erase(it, event.length);
    return std::optional(std::move(whole));
  }

  void expire(int64_t now_ns) {
    for (auto it = open_.begin(); it != open_.end();) {
      auto here = it++;
      if (now_ns - here->second.touched_ns > kIdleNs) erase(here, here->second.bytes.size());
    }
  }

  size_t open_chunks() const { return open_.size(); }

 private:
  using Key = std::tuple<TargetId, TargetId, ChunkId>;
  struct Entry {
    Buffer bytes;
    uint32_t filled = 0;
    ChunkVersion version = 0;
    ChainVersion chain_version = 0;
    ChainVersion update_chain = 0;
    int64_t touched_ns = 0;
  };
  using Iterator = std::map<Key, Entry>::iterator;

  Status open(const Key& key, const craq::Forwarded& event, int64_t now_ns) {
    if (auto old = open_.find(key); old != open_.end()) erase(old, old->second.bytes.size());
    if (open_.size() >= kMaxOpen || bytes_ + event.length > kMaxBytes)
      return Status(kBusy, "storage/forward", "too many large chunks are on their way");
    Buffer bytes = Buffer::allocate(event.length);
    bytes.resize(event.length);
    bytes_ += event.length;
    open_[key] = {std::move(bytes),   0,     event.version, event.chain_version,
                  event.update_chain, now_ns};
    return {};
  }
  void erase(Iterator it, uint64_t length) {
    bytes_ -= length;
    open_.erase(it);
  }

  std::map<Key, Entry> open_;
  uint64_t bytes_ = 0;
};

}  // namespace fs3::storage
