// Chunks in memory: what get() and read() see, and what recovery rebuilds.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "engine/block_pool.h"
#include "engine/dedup_rows.h"
#include "engine/patches.h"
#include "engine/records.h"
#include "engine/types.h"

namespace fs3::engine {

// Immutable once it is in the table.
struct Version {
  PendingInfo info;            // kind and identity of the update that made it
  uint32_t stored_length = 0;  // bytes in the block; zeros from there to info.length
  BlockRef block;              // null when stored_length is 0
  bool lost = false;           // no bytes are there, and they are not zeros
  std::shared_ptr<const std::vector<uint32_t>> checksums;  // of the stored bytes, per 4 KiB
  // The stored bytes are the block's, with the patches from this version to its own over them.
  ChunkVersion first_patch = 0;  // 0: none
  PatchRows patches;             // those that are not in the block yet, oldest first
};
using VersionRef = std::shared_ptr<const Version>;

struct ChunkKey {
  TargetId target = 0;
  ChunkId chunk;
  auto operator<=>(const ChunkKey&) const = default;
};

struct Chunk {
  VersionRef committed;
  VersionRef pending;
  uint8_t committed_slot = 1;  // so that the first pending version takes slot 0

  uint8_t free_slot() const { return static_cast<uint8_t>(1 - committed_slot); }
};

struct Target {
  uint32_t chain_id = 0;
  std::map<ChunkId, Chunk> chunks;
  DedupRows dedup;
  size_t updates = 0;  // running or waiting
};

ChunkState state_of(ChunkId id, const Chunk& chunk);
VersionRecord record_of(const Version& version);

}  // namespace fs3::engine
