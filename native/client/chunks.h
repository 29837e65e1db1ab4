// Whole-chunk work, mostly of servers: truncate, remove, find the end. Idempotent: every step may
// be repeated, by retries inside and by callers who do not know how far an earlier call came.
//
// What exists is asked of storage, chain by chain, not derived from the file's size: unsettled
// writes leave chunks beyond it, and sparse files have fewer than it says. So holes cost nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/function.h"
#include "base/status.h"
#include "client/chunk_call.h"
#include "client/client.h"

namespace fs3::client {

class Core;
class Lane;

// Whose chunks, and with which right.
struct ChunkJob {
  std::shared_ptr<Core> core;
  Lane* lane = nullptr;
  uint64_t inode = 0;
  std::shared_ptr<Placement> placement;
  std::shared_ptr<Credential> credential;
};

// Chunks index, index + stripe, .. `count` of them: whole ones, but for the last.
struct ChunkRun {
  uint64_t index = 0;
  uint64_t count = 0;  // at least 1
  uint32_t last_length = 0;
};
// The chunks from `first` on that lie on the chain of its stripe position; nothing is said about
// those from `through` on.
struct ChunkRunPage {
  std::vector<ChunkRun> runs;
  uint64_t through = 0;
};
// At most `runs_max` runs. On the lane, also `done`.
void query_runs(const ChunkJob& job, uint64_t first, uint32_t runs_max,
                Function<void(Result<ChunkRunPage>)> done);

// One chunk goes; ok when there is none. On the lane, also `done`. Not for servers alone: who may
// write a file may punch holes into it.
void remove_chunk(const ChunkJob& job, uint64_t index, Function<void(Status)> done);

void truncate_chunks(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout,
                     uint64_t old_size, uint64_t new_size, Function<void(Status)> done);
void remove_chunks(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout,
                   Function<void(Status)> done);
void measure(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout,
             Function<void(Result<Client::Measure>)> done);

}  // namespace fs3::client
