// CRC32C (Castagnoli, RFC 3720 B.4) by isa-l.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fs3 {

// crc32c(0, "123456789", 9) == 0xe3069283. Feed a result back as `seed` to continue: crc of a ++ b
// = crc32c(crc32c(0, a), b).
uint32_t crc32c(uint32_t seed, const void* data, size_t size);

// The checksum of a ++ b from the two checksums and the length of b, without the bytes. O(log
// size_b).
uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b);

}  // namespace fs3
