#include "storage/chunk_runs.h"

#include <algorithm>

#include "base/check.h"

namespace fs3::storage {
namespace {

// A version on its way counts: the answer may call a hole data, never data a hole.
uint32_t length_of(const engine::ChunkState& chunk) {
  return std::max(chunk.committed.length, chunk.pending ? chunk.pending->length : 0);
}

}  // namespace

std::optional<ChunkId> ChunkRuns::after() const {
  FS3_CHECK(command_.inode > 0);
  if (command_.first > 0) return ChunkId{command_.inode, command_.first - 1};
  return ChunkId{command_.inode - 1, UINT64_MAX};
}

bool ChunkRuns::add(const engine::ChunkState& chunk) {
  FS3_CHECK(!complete_);
  uint64_t index = chunk.chunk.index;
  if (chunk.chunk.inode != command_.inode) return stop(UINT64_MAX);
  if (++looked_at_ > kChunksMax) return stop(index);
  uint32_t length = length_of(chunk);
  if ((index - command_.first) % command_.step != 0 || length == 0) return true;
  if (!extends_last_run(index)) {
    if (reply_.runs_size() == static_cast<int>(command_.limit)) return stop(index);
    reply_.add_runs()->set_index(index);
  }
  auto* run = reply_.mutable_runs(reply_.runs_size() - 1);
  run->set_count(run->count() + 1);
  run->set_last_length(length);
  return true;
}

bool ChunkRuns::stop(uint64_t index) {
  complete_ = true;
  reply_.set_through(index);
  return false;
}

bool ChunkRuns::extends_last_run(uint64_t index) const {
  if (reply_.runs_size() == 0) return false;
  const auto& last = reply_.runs(reply_.runs_size() - 1);
  return last.last_length() == command_.chunk_size &&
         index - last.index() == last.count() * command_.step;
}

}  // namespace fs3::storage
