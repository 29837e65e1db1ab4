#include "fuse/files.h"

#include <fcntl.h>

#include <algorithm>

#include "base/check.h"

namespace fs3::fuse {
namespace {

// A process would have to open a file 10^12 times before its numbers met those of the next one.
constexpr int kGenerationShift = 40;

}  // namespace

bool File::writable() const { return (flags & O_ACCMODE) != O_RDONLY; }

uint64_t FileTable::add(FilePtr file) {
  if (count_.fetch_add(1, std::memory_order_relaxed) >= kOpenMax) {
    count_.fetch_sub(1, std::memory_order_relaxed);
    return 0;
  }
  uint64_t index = file->inode % kShards;
  uint64_t handle = next_.fetch_add(1, std::memory_order_relaxed) * kShards + index;
  insert(handle, std::move(file));
  return handle;
}

void FileTable::begin(uint64_t generation) { next_ = (generation << kGenerationShift) + 1; }

void FileTable::restore(uint64_t handle, FilePtr file) {
  FS3_CHECK(handle % kShards == file->inode % kShards);
  count_.fetch_add(1, std::memory_order_relaxed);
  insert(handle, std::move(file));
}

void FileTable::insert(uint64_t handle, FilePtr file) {
  Shard& shard = shards_[handle % kShards];
  std::lock_guard lock(shard.mutex);
  shard.by_inode[file->inode].push_back(file);
  shard.by_handle.emplace(handle, std::move(file));
}

FilePtr FileTable::find(uint64_t handle) {
  Shard& shard = shards_[handle % kShards];
  std::lock_guard lock(shard.mutex);
  auto found = shard.by_handle.find(handle);
  return found == shard.by_handle.end() ? nullptr : found->second;
}

FilePtr FileTable::remove(uint64_t handle) {
  Shard& shard = shards_[handle % kShards];
  std::lock_guard lock(shard.mutex);
  auto found = shard.by_handle.find(handle);
  if (found == shard.by_handle.end()) return nullptr;
  FilePtr file = std::move(found->second);
  shard.by_handle.erase(found);
  auto same = shard.by_inode.find(file->inode);
  std::erase(same->second, file);
  if (same->second.empty()) shard.by_inode.erase(same);
  count_.fetch_sub(1, std::memory_order_relaxed);
  return file;
}

FilePtr FileTable::any_of(uint64_t inode) {
  Shard& shard = shards_[inode % kShards];
  std::lock_guard lock(shard.mutex);
  auto found = shard.by_inode.find(inode);
  if (found == shard.by_inode.end()) return nullptr;
  for (const FilePtr& file : found->second) {
    if (file->writable()) return file;
  }
  return found->second.front();
}

std::vector<FilePtr> FileTable::all() {
  std::vector<FilePtr> files;
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    for (auto& [handle, file] : shard.by_handle) files.push_back(file);
  }
  return files;
}

bool FileTable::may_be_mapped(uint64_t inode) {
  Shard& shard = shards_[inode % kShards];
  std::lock_guard lock(shard.mutex);
  auto found = shard.by_inode.find(inode);
  if (found == shard.by_inode.end()) return false;
  return std::any_of(found->second.begin(), found->second.end(),
                     [](const FilePtr& file) { return (file->flags & O_ACCMODE) == O_RDWR; });
}

std::vector<FilePtr> FileTable::remove_all() {
  ended_.store(true, std::memory_order_relaxed);
  std::vector<FilePtr> files;
  for (Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    for (auto& [handle, file] : shard.by_handle) files.push_back(std::move(file));
    shard.by_handle.clear();
    shard.by_inode.clear();
  }
  count_.fetch_sub(files.size(), std::memory_order_relaxed);
  return files;
}

}  // namespace fs3::fuse
