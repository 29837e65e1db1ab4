// Values of the engine's interface.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/ids.h"

namespace fs3::engine {

struct TargetInfo {
  TargetId target = 0;
  uint32_t chain_id = 0;
};

struct VersionInfo {
  ChunkVersion version = 0;
  ChainVersion chain_version = 0;  // under which it was made
  uint32_t length = 0;             // bytes
  uint32_t checksum = 0;           // CRC32C of the whole chunk
};

struct PendingInfo : VersionInfo {
  UpdateKind kind = UpdateKind::kNone;
  UpdateIdentity identity;
};

struct ChunkState {
  ChunkId chunk;
  VersionInfo committed;  // version 0: none
  std::optional<PendingInfo> pending;
  // Bytes of that version did not match once, or were lost when it came; also after a restart.
  bool damaged = false;
  bool pending_damaged = false;
};

// All that a target holds of one inode.
struct InodeChunks {
  std::optional<ChunkState> last;  // the one with the highest index
  uint64_t chunks = 0;
  uint64_t bytes = 0;
};

struct DedupRow {
  UpdateIdentity identity;  // last committed update of (client, channel)
  ChunkId chunk;
  ChunkVersion version = 0;
  uint32_t chunk_length = 0;
  uint32_t checksum = 0;
  uint64_t touched = 0;  // the engine's: which put it was; 0 = stored before rows had an order
};

struct Space {
  uint64_t capacity_bytes = 0;
  uint64_t free_bytes = 0;
  uint64_t used_bytes = 0;
  uint64_t chunks = 0;
};

// A chunk version lies in one block of the smallest class that holds it: 4 KiB << class.
constexpr size_t kSizeClasses = 15;
constexpr size_t size_class_of(uint64_t length) {
  return length <= 4096 ? 0 : static_cast<size_t>(std::bit_width(length - 1)) - 12;
}
// A number of new blocks of each class.
using BlockCounts = std::array<uint32_t, kSizeClasses>;

struct Statistics {
  uint64_t reads = 0, read_bytes = 0, stages = 0, staged_bytes = 0, commits = 0, syncs = 0,
           checksum_errors = 0, copied_bytes = 0, patches = 0, folded_bytes = 0;
  uint64_t patch_bytes = 0;  // that lie over their blocks now
};

}  // namespace fs3::engine
