// The first thing on a disk: whose it is. 4 KiB in the file `superblock`; layout in FORMAT.md.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/status.h"
#include "disk/disk.h"

namespace fs3::engine {

constexpr const char* kSuperblockName = "superblock";
constexpr uint32_t kFormatVersion = 1;

struct Superblock {
  uint32_t format_version = kFormatVersion;
  uint32_t node_id = 0;
  std::array<uint8_t, 16> cluster_id{};
};

std::string encode(const Superblock& superblock);
// EBADMSG for anything but a whole, sound superblock of a known format.
Result<Superblock> decode_superblock(std::string_view bytes);

// Reads it from the disk. ENOENT: the directory was never made an fs3 disk.
Result<Superblock> load_superblock(disk::Disk& disk, const std::string& directory);
// kWrongCluster, with both ids in the detail, when the disk belongs to somebody else.
Status check_owner(const Superblock& found, const Superblock& wanted, const std::string& directory);

}  // namespace fs3::engine
