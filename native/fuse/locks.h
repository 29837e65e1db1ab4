// LockTable: what a mount remembers of the locks of its processes. Who holds what is known to the
// metadata service alone; here is what the kernel does not say again when a file is closed, and who
// waits.
//
//   FLUSH    each close(2) of a process ends its fcntl locks on the inode: take_owner()
//   RELEASE  the last close of an open file ends the locks that it owns (F_OFD_SETLK):
//   take_handle()
//
// The kernel tells an owner of F_SETLK from one of F_OFD_SETLK by nothing. But whatever a process
// locked through a handle ended with its FLUSH, so what is left at RELEASE is the open file's own.
//
// Thread safety: from any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fuse/request.h"
#include "meta.pb.h"

namespace fs3::fuse {

// A SETLK or SETLKW on its way.
struct LockWait {
  LockWait(RequestPtr from, proto::meta::LockRequest request, std::string serialized_caller)
      : unique(from->unique()),
        request(std::move(from)),
        body(std::move(request)),
        caller(std::move(serialized_caller)) {}
  const uint64_t unique;
  RequestPtr request;
  proto::meta::LockRequest body;
  const std::string caller;
  bool interrupted = false;  // guarded by LockTable; read through interrupted()
};
using LockWaitPtr = std::shared_ptr<LockWait>;

class LockTable {
 public:
  // Before the service is asked for a lock: an answer may get lost.
  void note(uint64_t inode, uint64_t owner, uint64_t fh);
  // True when the owner may have locks on the inode; it is forgotten.
  bool take_owner(uint64_t inode, uint64_t owner);
  // Owners that may have locks by this handle; they are forgotten.
  std::vector<uint64_t> take_handle(uint64_t inode, uint64_t fh);

  // Never used before by this mount.
  uint64_t new_ticket();
  // False: `max` wait already.
  bool begin_wait(const LockWaitPtr& wait, size_t max);
  void end_wait(const LockWaitPtr& wait);
  // The wait to cancel; null when none has this unique, or not yet: then begin_wait finds it so.
  LockWaitPtr interrupt(uint64_t unique);
  bool interrupted(const LockWaitPtr& wait);

 private:
  // Uniques are never used twice, so one that no wait has can stay until others push it out.
  static constexpr size_t kInterruptsKept = 256;

  std::mutex mutex_;  // guards everything below, and LockWait::interrupted
  std::unordered_map<uint64_t, std::set<std::pair<uint64_t, uint64_t>>> owners_;  // owner, handle
  std::unordered_map<uint64_t, LockWaitPtr> waits_;                               // by unique
  std::deque<uint64_t> interrupts_;
  uint64_t next_ticket_ = 1;
};

}  // namespace fs3::fuse
