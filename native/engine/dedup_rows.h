// DedupRows: the dedup rows of one target, as they are or will be stored. Bounded: channels come
// and go with client processes, and a row whose client is gone would stay for ever.
//
// Which rows go is decided as in craq::DedupTable, so that a restart forgets nothing that the
// running process remembered: those that were touched longest ago. `touched` counts puts, not time:
// no clock that jumps, and the same puts leave the same rows on every replica of the chain.
//
// Thread safety: none.
#pragma once

#include <array>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "engine/types.h"

namespace fs3::engine {

// As many as craq::DedupTable keeps (native/storage asserts it): 512 clients of 64 channels each. A
// row is needed as long as a retry may come, half a minute; the bound forgets it only when 32 Ki
// other channels wrote to this target meanwhile.
constexpr size_t kDedupRowsMax = 32768;
// Rows that one put may push out; more than one only after an older version left too many.
constexpr size_t kDedupEvictedMax = 1024;

class DedupRows {
 public:
  // False: a higher sequence of the channel is there, and stays. True: `row` got its place and its
  // `touched`, and what had to go for it is in `evicted`.
  bool put(DedupRow& row, std::vector<DedupRow>& evicted);
  // At recovery: the row as it was stored. Nothing is evicted.
  void load(const DedupRow& row);
  void clear();
  // Touched longest ago first.
  std::vector<DedupRow> in_order() const;
  size_t size() const { return rows_.size(); }

 private:
  using Channel = std::pair<std::array<uint8_t, 16>, uint32_t>;
  static Channel channel_of(const DedupRow& row) {
    return {row.identity.client_id, row.identity.channel};
  }

  std::map<Channel, DedupRow> rows_;
  std::set<std::pair<uint64_t, Channel>> order_;  // the same rows by `touched`
  uint64_t touches_ = 0;                          // the largest `touched`
};

}  // namespace fs3::engine
