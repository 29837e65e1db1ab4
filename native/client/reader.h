// Reads: own dirty bytes from memory, the rest from the chunks' chains, in parallel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/function.h"
#include "base/status.h"
#include "client/client.h"

namespace fs3::client {

class Core;
struct OpenFile;

// As Client::read. A file whose end lies before the read is asked of the metadata service once more
// (unless its size was heard a moment ago), so a reader can follow a file that grows elsewhere.
void read_file(std::shared_ptr<Core> core, FileHandle handle, uint64_t offset, std::byte* into,
               size_t length, Holes holes, Function<void(Result<size_t>)> done);

// The size of the file as a reader here may see it, asked of the metadata service unless it was
// heard a moment ago. `done` on the lane, or inside the call.
void fresh_size(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                Function<void(Result<uint64_t>)> done);

}  // namespace fs3::client
