// FileTable: the open files of a mount, by the handle number that the kernel carries.
//
// Thread safety: from any thread. A File is shared: an operation that found it may go on after the
// table has dropped it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/client.h"

namespace fs3::fuse {

struct File {
  uint64_t inode = 0;
  uint32_t flags = 0;  // open(2)
  client::FileHandle handle;
  std::string session;  // of the metadata service; empty for a read-only open
  bool writable() const;
};
using FilePtr = std::shared_ptr<File>;

class FileTable {
 public:
  static constexpr size_t kOpenMax = 1u << 20;

  // 0: too many open files.
  uint64_t add(FilePtr file);
  // Null: no such handle.
  FilePtr find(uint64_t handle);
  FilePtr remove(uint64_t handle);
  // An open file of the inode, a writable one when there is any; null when it is not open here.
  FilePtr any_of(uint64_t inode);
  // A handle of the inode reads and writes, as a shared mapping that is written needs.
  bool may_be_mapped(uint64_t inode);
  std::vector<FilePtr> remove_all();
  size_t size() const { return count_.load(std::memory_order_relaxed); }

 private:
  // A handle number is a counter and, in the low bits, its shard, which the inode decides: so all
  // files of an inode are in one shard.
  static constexpr uint64_t kShards = 64;
  struct Shard {
    std::mutex mutex;
    std::unordered_map<uint64_t, FilePtr> by_handle;              // guarded by mutex
    std::unordered_map<uint64_t, std::vector<FilePtr>> by_inode;  // guarded by mutex
  };
  std::array<Shard, kShards> shards_;
  std::atomic<uint64_t> next_{1};
  std::atomic<size_t> count_{0};
};

}  // namespace fs3::fuse
