// Patches: small updates of a chunk, kept as rows of the metadata until they are put into its
// block.
//
// A write of a few KiB into a chunk of 1 MiB would otherwise copy the whole block (copy-on-write),
// and wait for two flushes, the data's and the metadata's. As a patch it is one more row in the
// synced batch that names the version anyway: one flush, no copy. The folder (folder.h) writes many
// patches into their blocks at once, later, and removes their rows.
//
// A row holds whole blocks of 4 KiB, as they are in its version. The content of a version is its
// block with the rows [first_patch, version] laid over it, the younger over the older.
// Thread safety: the reactor's thread. Rows are immutable and shared by the versions they lie over.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/buffer.h"
#include "base/ids.h"
#include "engine/checksum.h"

namespace fs3::engine {

struct PatchLimits {
  // Bytes of one row. Beyond it the second copy of the bytes (log, then block) costs more than the
  // flush it saves.
  uint32_t row_bytes = 16 << 10;
  // Rows over one chunk: what a read lays over the block, and what opening reads.
  size_t rows = 64;
  // Of all rows in memory (and in the log): at fold_bytes the folder begins, one flush for a
  // thousand blocks of 4 KiB; at bytes_max, when it does not keep up, small updates are copied.
  uint64_t fold_bytes = 4 << 20;
  uint64_t bytes_max = 32 << 20;
};

// One row. `total`, of all rows there are, counts its bytes while it lives.
class PatchRow {
 public:
  PatchRow(ChunkVersion version, uint32_t first_block, Buffer bytes,
           std::shared_ptr<uint64_t> total);
  ~PatchRow();
  PatchRow(const PatchRow&) = delete;
  PatchRow& operator=(const PatchRow&) = delete;

  ChunkVersion version() const { return version_; }
  uint32_t first_block() const { return first_block_; }
  const Buffer& bytes() const { return bytes_; }                 // a multiple of 4 KiB
  uint32_t begin() const { return first_block_ * kBlockBytes; }  // bytes of the chunk
  uint32_t end() const { return begin() + static_cast<uint32_t>(bytes_.size()); }
  bool covers(uint32_t first, uint32_t last) const { return begin() <= first && last <= end(); }

 private:
  const ChunkVersion version_;
  const uint32_t first_block_;
  const Buffer bytes_;
  const std::shared_ptr<uint64_t> total_;
};
using PatchRowRef = std::shared_ptr<const PatchRow>;
using PatchRows = std::vector<PatchRowRef>;  // oldest first

// Puts what the rows hold of [begin, begin + buffer.size()) over the buffer.
void lay_over(const PatchRows& rows, uint32_t begin, const Buffer& buffer);
// The rows alone hold all of [begin, end): the block need not be read.
bool hold_all(const PatchRows& rows, uint32_t begin, uint32_t end);
bool any_touches(const PatchRows& rows, uint32_t block);

}  // namespace fs3::engine
