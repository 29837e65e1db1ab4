// Whole-chunk work of servers: truncate, remove, find the end. Idempotent: every step may be
// repeated, by retries inside and by callers who do not know how far an earlier call came.
//
// What exists is asked of storage (QUERY_LAST per chain), not derived from the file's size:
// unsettled writes leave chunks beyond it, and sparse files have fewer than it says.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/function.h"
#include "base/status.h"

namespace fs3::client {

class Core;

void truncate_chunks(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout,
                     uint64_t old_size, uint64_t new_size, Function<void(Status)> done);
void remove_chunks(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout,
                   Function<void(Status)> done);
void query_length(std::shared_ptr<Core> core, uint64_t inode, const std::string& layout,
                  Function<void(Result<uint64_t>)> done);

}  // namespace fs3::client
