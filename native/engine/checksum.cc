#include "engine/checksum.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/crc32c.h"

namespace fs3::engine {
namespace {

// What appending a block of 4 KiB does to the sum before it, as a table: the step is linear over
// XOR, so four look-ups by byte give it.
class BlockShift {
 public:
  BlockShift() {
    for (int byte = 0; byte < 4; ++byte) {
      for (uint32_t value = 0; value < 256; ++value) {
        table_[byte][value] = crc32c_combine(value << (8 * byte), 0, kBlockBytes);
      }
    }
  }
  uint32_t operator()(uint32_t crc) const {
    return table_[0][crc & 255] ^ table_[1][crc >> 8 & 255] ^ table_[2][crc >> 16 & 255] ^
           table_[3][crc >> 24];
  }

 private:
  std::array<std::array<uint32_t, 256>, 4> table_;
};

}  // namespace

std::vector<uint32_t> block_checksums(const void* data, size_t size) {
  std::vector<uint32_t> sums(blocks_of(size));
  const auto* bytes = static_cast<const std::byte*>(data);
  for (uint32_t i = 0; i < sums.size(); ++i) {
    sums[i] = crc32c(0, bytes + uint64_t{i} * kBlockBytes, covered(size, i));
  }
  return sums;
}

uint32_t combine_blocks(std::span<const uint32_t> sums, uint64_t length) {
  static const BlockShift shift;
  FS3_CHECK(sums.size() == blocks_of(length));
  uint32_t crc = 0;
  for (uint32_t i = 0; i < sums.size(); ++i) {
    uint32_t size = covered(length, i);
    crc = size == kBlockBytes ? shift(crc) ^ sums[i] : crc32c_combine(crc, sums[i], size);
  }
  return crc;
}

uint32_t extend_with_zeros(uint32_t crc, uint64_t count) {
  static constexpr std::byte kZero{0};
  uint32_t piece = crc32c(0, &kZero, 1);  // of `size` zeros
  for (uint64_t size = 1; count > 0; size *= 2, count /= 2) {
    if (count % 2 != 0) crc = crc32c_combine(crc, piece, size);
    piece = crc32c_combine(piece, piece, size);
  }
  return crc;
}

}  // namespace fs3::engine
