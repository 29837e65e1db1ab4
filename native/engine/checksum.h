// CRC32C of a chunk by 4 KiB blocks: one sum per block, the whole chunk's sum from them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace fs3::engine {

constexpr uint32_t kBlockBytes = 4096;
constexpr uint32_t kChunkBytesMax = 64u << 20;

constexpr uint64_t round_down(uint64_t value) { return value / kBlockBytes * kBlockBytes; }
constexpr uint64_t round_up(uint64_t value) { return round_down(value + kBlockBytes - 1); }
// Number of blocks that hold `length` bytes.
constexpr uint32_t blocks_of(uint64_t length) {
  return static_cast<uint32_t>(round_up(length) / kBlockBytes);
}
// Bytes of block `index` that belong to a content of `length` bytes. REQUIRES: the block has some.
constexpr uint32_t covered(uint64_t length, uint32_t index) {
  uint64_t left = length - uint64_t{index} * kBlockBytes;
  return static_cast<uint32_t>(left < kBlockBytes ? left : kBlockBytes);
}

// One sum per block of data; the last block may be short.
std::vector<uint32_t> block_checksums(const void* data, size_t size);

// The sum of `length` bytes from those of their blocks. REQUIRES: sums.size() == blocks_of(length).
uint32_t combine_blocks(std::span<const uint32_t> sums, uint64_t length);

// The sum of a content with sum `crc`, followed by `count` zero bytes.
uint32_t extend_with_zeros(uint32_t crc, uint64_t count);

}  // namespace fs3::engine
