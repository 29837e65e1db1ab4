#include "engine/superblock.h"

#include <cerrno>
#include <cstring>

#include "base/crc32c.h"

namespace fs3::engine {
namespace {

constexpr size_t kSize = 4096;
constexpr char kMagic[8] = {'f', 's', '3', 'd', 'i', 's', 'k', '\n'};

struct Layout {
  char magic[8];
  uint32_t format_version;
  uint32_t node_id;
  std::array<uint8_t, 16> cluster_id;
  std::array<uint8_t, kSize - 36> zeros;
  uint32_t crc;  // of all before it
};
static_assert(sizeof(Layout) == kSize);

Status bad(const std::string& what) { return Status(EBADMSG, "engine/superblock", what); }

std::string hex(const std::array<uint8_t, 16>& bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (uint8_t byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

std::string encode(const Superblock& superblock) {
  Layout layout{};
  std::memcpy(layout.magic, kMagic, sizeof kMagic);
  layout.format_version = superblock.format_version;
  layout.node_id = superblock.node_id;
  layout.cluster_id = superblock.cluster_id;
  layout.crc = crc32c(0, &layout, offsetof(Layout, crc));
  return std::string(reinterpret_cast<const char*>(&layout), sizeof layout);
}

Result<Superblock> decode_superblock(std::string_view bytes) {
  if (bytes.size() != kSize) {
    return bad("is " + std::to_string(bytes.size()) + " bytes long instead of 4096");
  }
  Layout layout;
  std::memcpy(&layout, bytes.data(), sizeof layout);
  if (std::memcmp(layout.magic, kMagic, sizeof kMagic) != 0) return bad("magic: not an fs3 disk");
  if (layout.crc != crc32c(0, &layout, offsetof(Layout, crc))) return bad("crc: does not match");
  if (layout.format_version != kFormatVersion) {
    return bad("format version " + std::to_string(layout.format_version) +
               " is not one this program knows (" + std::to_string(kFormatVersion) + ")");
  }
  return Superblock{layout.format_version, layout.node_id, layout.cluster_id};
}

Result<Superblock> load_superblock(disk::Disk& disk, const std::string& directory) {
  // One byte more than it may have: a longer file is damage, told as such.
  auto bytes = disk.read_small(kSuperblockName, kSize + 1);
  if (!bytes.ok()) return bytes.status();
  auto superblock = decode_superblock(*bytes);
  if (superblock.ok()) return superblock;
  return Status(superblock.status().code(), "engine/open",
                directory + "/" + kSuperblockName + " " +
                    std::string(superblock.status().detail()) +
                    "; the disk cannot be used as it is: restore that file, or make the target "
                    "anew elsewhere and let it resync");
}

Status check_owner(const Superblock& found, const Superblock& wanted,
                   const std::string& directory) {
  if (found.cluster_id == wanted.cluster_id && found.node_id == wanted.node_id) return Status();
  return Status(kWrongCluster, "engine/open",
                directory + " belongs to node " + std::to_string(found.node_id) + " of cluster " +
                    hex(found.cluster_id) + ", but this is node " + std::to_string(wanted.node_id) +
                    " of cluster " + hex(wanted.cluster_id));
}

}  // namespace fs3::engine
