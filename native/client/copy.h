// copy_file_range(2): from file to file through this client, not through the caller.
//
// The source is read as any reader here sees it, in pieces of 1 MiB, a few at a time; the pieces
// are written like any other write, so errors of buffered bytes are told by the target's handle.
// What is a hole in the source becomes one in the target where there was data, and costs nothing
// behind its end.
#pragma once

#include <cstdint>
#include <memory>

#include "base/function.h"
#include "base/status.h"
#include "client/client.h"

namespace fs3::client {

class Core;

// As Client::copy_range.
void copy_range(const std::shared_ptr<Core>& core, const FileHandle& from, uint64_t from_offset,
                const FileHandle& to, uint64_t to_offset, uint64_t length,
                Function<void(Result<uint64_t>)> done);

}  // namespace fs3::client
