// DedupTable: the last committed update of each (client, channel), and how it was answered.
//
// Thread safety: none. Bounded: the row that was touched least recently goes when there are more
// than kMaxDedupRows. Deterministic order.
#pragma once

#include <list>
#include <unordered_map>
#include <vector>

#include "craq/replica.h"

namespace fs3::craq {

// 32 Ki rows: 512 clients of 64 channels each, about 5 MiB. The engine stores as many, chosen alike
// (engine/dedup_rows.h).
constexpr size_t kMaxDedupRows = 32768;

class DedupTable {
 public:
  // The row of the identity's channel, whatever its sequence; nullptr when there is none.
  const LoadDedup* find(const UpdateIdentity& identity) const;
  // Of one channel the highest sequence stays. An identity without client makes no row.
  void put(const LoadDedup& row);
  void clear();
  std::vector<LoadDedup> rows() const;  // least recently touched first
  size_t size() const { return index_.size(); }

 private:
  struct Channel {
    std::array<uint8_t, 16> client_id{};
    uint32_t channel = 0;
    bool operator==(const Channel&) const = default;
  };
  struct Hash {
    size_t operator()(const Channel& key) const noexcept;
  };
  static Channel channel_of(const UpdateIdentity& identity) {
    return {identity.client_id, identity.channel};
  }

  std::list<LoadDedup> rows_;
  std::unordered_map<Channel, std::list<LoadDedup>::iterator, Hash> index_;
};

// True for the identity of all zeros, which resync and tools use: it names no client's update.
inline bool anonymous(const UpdateIdentity& identity) {
  return identity.client_id == std::array<uint8_t, 16>{};
}

}  // namespace fs3::craq
