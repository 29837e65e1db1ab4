// The superblock of a disk.
#include <cerrno>

#include "base/crc32c.h"
#include "engine/superblock.h"
#include "fuzz.h"

namespace fs3::fuzz {
namespace {

bool decode(std::string_view bytes) {
  auto decoded = engine::decode_superblock(bytes);
  if (!decoded.ok()) {
    FS3_CHECK(decoded.status().code() == EBADMSG);
    return false;
  }
  FS3_CHECK(decoded->format_version == engine::kFormatVersion);
  // Bytes that no field has are zeros in what this version writes.
  auto again = engine::decode_superblock(engine::encode(*decoded));
  FS3_CHECK(again.ok() && again->node_id == decoded->node_id);
  FS3_CHECK(again->cluster_id == decoded->cluster_id);
  return true;
}

}  // namespace

const size_t kSealedFrom = 0;

bool accepts(std::string_view input) {
  // The first bytes of the input, with everything else as it should be.
  std::string block(4096, '\0');
  std::memcpy(block.data(), input.data(), std::min<size_t>(input.size(), 128));
  uint32_t crc = crc32c(0, block.data(), 4092);
  std::memcpy(block.data() + 4092, &crc, sizeof crc);
  (void)decode(block);
  return decode(input);
}

}  // namespace fs3::fuzz
