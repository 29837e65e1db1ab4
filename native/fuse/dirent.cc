#include "fuse/dirent.h"

#include <cstring>

namespace fs3::fuse {

std::byte* DirentPacker::reserve(size_t length) {
  if (length > size_ - used_) return nullptr;
  std::byte* at = space_ + used_;
  std::memset(at, 0, length);
  used_ += length;
  return at;
}

void DirentPacker::put(std::byte* at, std::string_view name, uint64_t node, uint32_t type,
                       uint64_t offset) {
  fuse_dirent entry{};
  entry.ino = node;
  entry.off = offset;
  entry.namelen = static_cast<uint32_t>(name.size());
  entry.type = type;
  std::memcpy(at, &entry, FUSE_NAME_OFFSET);
  std::memcpy(at + FUSE_NAME_OFFSET, name.data(), name.size());
}

bool DirentPacker::add(std::string_view name, uint64_t node, uint32_t type, uint64_t offset) {
  std::byte* at = reserve(FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name.size()));
  if (at == nullptr) return false;
  put(at, name, node, type, offset);
  return true;
}

bool DirentPacker::add_plus(std::string_view name, uint64_t node, uint32_t type, uint64_t offset,
                            const fuse_entry_out& entry) {
  std::byte* at = reserve(FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + name.size()));
  if (at == nullptr) return false;
  std::memcpy(at, &entry, sizeof entry);
  put(at + sizeof entry, name, node, type, offset);
  return true;
}

}  // namespace fs3::fuse
