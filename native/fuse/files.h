// FileTable: the open files of a mount, by the handle number that the kernel carries.
//
// Thread safety: from any thread. A File is shared: an operation that found it may go on after the
// table has dropped it.
#pragma once

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/client.h"
#include "fuse/handover.h"

namespace fs3::fuse {

struct File {
  uint64_t inode = 0;
  uint32_t flags = 0;  // open(2)
  client::FileHandle handle;
  std::string session;              // of the metadata service; empty for a read-only open
  bool appends_only = false;        // chattr +a: whatever fcntl(2) says later
  uint32_t slot = Handover::kNone;  // its record for whoever takes the mount over
  // Buffered bytes of it died with the process before: the next flush or fsync says so, once.
  std::atomic<bool> lost{false};
  // What proves that somebody has it open, for rings; 0: nobody has asked yet.
  std::atomic<uint64_t> ring_key{0};
  bool paged = false;  // its reads and writes go through the kernel's page cache
  bool writable() const;
};
using FilePtr = std::shared_ptr<File>;

class FileTable {
 public:
  static constexpr size_t kOpenMax = 1u << 20;

  // Before the first add: numbers of another generation are never given out.
  void begin(uint64_t generation);
  // 0: too many open files.
  uint64_t add(FilePtr file);
  // Under the number that it had in a process before.
  void restore(uint64_t handle, FilePtr file);
  // Null: no such handle.
  FilePtr find(uint64_t handle);
  // What its caller is told then: the handle is wrong, or the mount has ended under its programs.
  int not_found() const { return ended_.load(std::memory_order_relaxed) ? ENOTCONN : EBADF; }
  FilePtr remove(uint64_t handle);
  // An open file of the inode, a writable one when there is any; null when it is not open here.
  FilePtr any_of(uint64_t inode);
  // A handle of the inode reads and writes, as a shared mapping that is written needs.
  bool may_be_mapped(uint64_t inode);
  std::vector<FilePtr> all();
  // The end of the mount.
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
  void insert(uint64_t handle, FilePtr file);
  std::array<Shard, kShards> shards_;
  std::atomic<uint64_t> next_{1};
  std::atomic<size_t> count_{0};
  std::atomic<bool> ended_{false};
};

}  // namespace fs3::fuse
