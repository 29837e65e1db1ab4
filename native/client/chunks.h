// Whole-chunk work, mostly of servers: truncate, remove, find the end. Idempotent: every step may
// be repeated, by retries inside and by callers who do not know how far an earlier call came.
//
// What exists is asked of storage (QUERY_LAST per chain), not derived from the file's size:
// unsettled writes leave chunks beyond it, and sparse files have fewer than it says.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

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
