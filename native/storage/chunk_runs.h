// ChunkRuns: the answer to QUERY_CHUNKS while the disk's chunks are walked. Pure, any thread.
//
// A dense file is one run per chain, whatever its length, and so is the work of whoever reads the
// answer; the walk is bounded by kChunksMax, and an answer that was cut says where.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/types.h"
#include "storage.pb.h"
#include "storage/codec.h"

namespace fs3::storage {

class ChunkRuns {
 public:
  // Chunks taken from the engine at once, and looked at per request: the reactor is busy meanwhile,
  // about 2 ms.
  static constexpr size_t kPage = 1024;
  static constexpr size_t kChunksMax = 16 * kPage;

  explicit ChunkRuns(const QueryChunksCommand& command) : command_(command) {}

  // Where the walk begins: the chunks after this one, in the order of ids.
  std::optional<ChunkId> after() const;
  // The next chunk of the disk. False: nothing that follows is wanted.
  bool add(const engine::ChunkState& chunk);
  // No chunk follows.
  void end_of_disk() {
    if (!complete_) stop(UINT64_MAX);
  }
  bool complete() const { return complete_; }
  // A serialized QueryChunksReply.
  std::string reply() const { return reply_.SerializeAsString(); }

 private:
  // Nothing is said about chunks from `index` on.
  bool stop(uint64_t index);
  bool extends_last_run(uint64_t index) const;

  const QueryChunksCommand command_;
  proto::storage::QueryChunksReply reply_;
  size_t looked_at_ = 0;
  bool complete_ = false;
};

}  // namespace fs3::storage
