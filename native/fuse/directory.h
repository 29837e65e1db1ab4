// Directory: one opendir(3), streamed page by page, one page ahead of the reader.
//
// The kernel names its place by the offset of the last entry it got: 0 at the start, 1 after ".",
// 2 after "..", then the entry's cookie (16 or more, growing; fs3/kv/keys.py). Any offset can be
// continued from, also after pages were dropped.
//
// Thread safety: the owner's mutex (Directory::mutex) guards everything in it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "fuse/request.h"
#include "meta.pb.h"

namespace fs3::fuse {

constexpr uint64_t kOffsetDot = 1;
constexpr uint64_t kOffsetDotDot = 2;
constexpr uint32_t kPageEntries = 1024;  // fs3/limits.py READDIR_ENTRIES_MAX

// One reply of the service. `after`: the cookie it was asked for; entries follow it.
struct DirectoryPage {
  uint64_t after = 0;
  bool attributes = false;
  uint64_t generation = 0;  // of the directory when it was asked for
  int64_t asked_ns = 0;     // before the request went out: attributes are at least as new as this
  proto::meta::ReaddirReply reply;

  // The index of the first entry behind `cookie`, when this page continues from there without a
  // gap; else -1.
  int position(uint64_t cookie) const;
  // The cookie to ask the next page with.
  uint64_t last_cookie() const;
};
using PagePtr = std::shared_ptr<const DirectoryPage>;

struct Directory {
  Directory(uint64_t node, bool no_atime) : inode(node), no_atime(no_atime) {}
  const uint64_t inode;
  const bool no_atime;  // opened with O_NOATIME

  std::mutex mutex;
  // ---- guarded by mutex ----
  PagePtr current;
  PagePtr ahead;
  std::string caller;       // of the latest request: who the next page is read for
  uint64_t generation = 0;  // grows with each rewind: older pages no longer count
  bool fetching_ahead = false;
  uint64_t ahead_after = 0;         // cookie of the page that is being fetched ahead
  std::vector<RequestPtr> waiting;  // for that page
};
using DirectoryPtr = std::shared_ptr<Directory>;

class DirectoryTable {
 public:
  static constexpr size_t kOpenMax = 1u << 20;
  void begin(uint64_t generation);              // as FileTable
  uint64_t add(uint64_t inode, bool no_atime);  // 0: too many
  // One that a process before had opened is made anew: the kernel says where it is.
  DirectoryPtr find(uint64_t handle, uint64_t inode, bool no_atime);
  void remove(uint64_t handle);

 private:
  std::mutex mutex_;
  uint64_t first_ = 1;                                    // guarded by mutex_: of this process
  uint64_t next_ = 1;                                     // guarded by mutex_
  std::unordered_map<uint64_t, DirectoryPtr> by_handle_;  // guarded by mutex_
};

}  // namespace fs3::fuse
