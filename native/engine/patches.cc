#include "engine/patches.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace fs3::engine {

PatchRow::PatchRow(ChunkVersion version, uint32_t first_block, Buffer bytes,
                   std::shared_ptr<uint64_t> total)
    : version_(version),
      first_block_(first_block),
      bytes_(std::move(bytes)),
      total_(std::move(total)) {
  FS3_CHECK(!bytes_.empty() && bytes_.size() % kBlockBytes == 0);
  FS3_CHECK(end() <= kChunkBytesMax);
  *total_ += bytes_.size();
}

PatchRow::~PatchRow() {
  FS3_CHECK(*total_ >= bytes_.size());
  *total_ -= bytes_.size();
}

void lay_over(const PatchRows& rows, uint32_t begin, const Buffer& buffer) {
  uint32_t end = begin + static_cast<uint32_t>(buffer.size());
  for (const PatchRowRef& row : rows) {
    uint32_t from = std::max(begin, row->begin());
    uint32_t to = std::min(end, row->end());
    if (from >= to) continue;
    std::memcpy(buffer.data() + (from - begin), row->bytes().data() + (from - row->begin()),
                to - from);
  }
}

bool hold_all(const PatchRows& rows, uint32_t begin, uint32_t end) {
  return std::any_of(rows.begin(), rows.end(),
                     [&](const PatchRowRef& row) { return row->covers(begin, end); });
}

bool any_touches(const PatchRows& rows, uint32_t block) {
  uint32_t begin = block * kBlockBytes;
  return std::any_of(rows.begin(), rows.end(), [&](const PatchRowRef& row) {
    return row->begin() <= begin && begin < row->end();
  });
}

}  // namespace fs3::engine
