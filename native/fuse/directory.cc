#include "fuse/directory.h"

#include <algorithm>

namespace fs3::fuse {

int DirectoryPage::position(uint64_t cookie) const {
  if (cookie < after) return -1;
  const auto& entries = reply.entries();
  if (cookie == after) return 0;
  // Only behind an entry that is here: what lies between two pages cannot be known.
  if (entries.empty() || cookie > entries.rbegin()->cookie())
    return reply.end() ? entries.size() : -1;
  auto behind = std::upper_bound(
      entries.begin(), entries.end(), cookie,
      [](uint64_t value, const proto::meta::DirEntry& entry) { return value < entry.cookie(); });
  return static_cast<int>(behind - entries.begin());
}

uint64_t DirectoryPage::last_cookie() const {
  return reply.entries().empty() ? after : reply.entries().rbegin()->cookie();
}

void DirectoryTable::begin(uint64_t generation) {
  std::lock_guard lock(mutex_);
  first_ = next_ = (generation << 40) + 1;
}

uint64_t DirectoryTable::add(uint64_t inode, bool no_atime) {
  std::lock_guard lock(mutex_);
  if (by_handle_.size() >= kOpenMax) return 0;
  uint64_t handle = next_++;
  by_handle_.emplace(handle, std::make_shared<Directory>(inode, no_atime));
  return handle;
}

DirectoryPtr DirectoryTable::find(uint64_t handle, uint64_t inode, bool no_atime) {
  std::lock_guard lock(mutex_);
  auto found = by_handle_.find(handle);
  if (found != by_handle_.end()) return found->second;
  if (handle == 0 || handle >= first_ || by_handle_.size() >= kOpenMax) return nullptr;
  return by_handle_.emplace(handle, std::make_shared<Directory>(inode, no_atime)).first->second;
}

void DirectoryTable::remove(uint64_t handle) {
  std::lock_guard lock(mutex_);
  by_handle_.erase(handle);
}

}  // namespace fs3::fuse
