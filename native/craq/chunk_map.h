// ChunkMap: what the disk holds of each idle chunk, ordered by id, about 50 bytes per chunk.
//
// Sorted runs of at most kRunMax entries, found through a small tree of their first keys: ordered
// walks for resync without a copy, and no allocation per chunk.
// Thread safety: none. Invariants: runs are sorted, not empty, and do not overlap. Pointers to
// records stay valid until the next put() or erase().
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/ids.h"

namespace fs3::craq {

// Names the content of a chunk; ordered as the head made them. {0, 0} comes before all.
struct Position {
  ChainVersion chain = 0;
  ChunkVersion version = 0;
  auto operator<=>(const Position&) const = default;
};

// The committed version of a chunk.
struct Record {
  ChunkVersion version = 0;
  ChainVersion chain = 0;
  uint32_t length = 0;
  uint32_t checksum = 0;
  // The chain version in which a syncing replica got it level (at that replica), or in which the
  // syncing successor is known to have the same (at its predecessor).
  ChainVersion level_in = 0;

  Position position() const { return {chain, version}; }
};

class ChunkMap {
 public:
  Record* find(const ChunkId& id);
  const Record* find(const ChunkId& id) const { return const_cast<ChunkMap*>(this)->find(id); }
  void put(const ChunkId& id, const Record& record);
  void erase(const ChunkId& id);  // unknown ids are ignored
  // The first id after `after`; of all when not given.
  std::optional<ChunkId> next(const std::optional<ChunkId>& after) const;
  uint64_t size() const { return size_; }

 private:
  static constexpr size_t kRunMax = 128;
  struct Entry {
    ChunkId id;
    Record record;
  };
  using Run = std::vector<Entry>;
  using Runs = std::map<ChunkId, Run>;

  // The run that holds `id` if any does: the last one that begins at or before it.
  Runs::iterator run_of(const ChunkId& id);
  void split(Runs::iterator run);

  Runs runs_;
  uint64_t size_ = 0;
};

}  // namespace fs3::craq
