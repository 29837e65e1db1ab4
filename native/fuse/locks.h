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
// flock(2) needs nothing of this: the handle is the owner, and the kernel says at RELEASE that
// there may be a lock.
//
// The kernel does not wait for the answer to RELEASE. So whoever asks for a lock after a close
// waits here until the locks of the closed file have been let go (after_release). That is needed
// for one more reason: an owner is an address in the kernel, and is used again at once.
//
// All this lies in the memory of the mount as well (handover.h), for the process after this one.
//
// Thread safety: from any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fuse/handover.h"
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
  client::Client::CallName name;      // of the call under way
  uint32_t record = Handover::kNone;  // of the name
  bool interrupted = false;           // guarded by LockTable; read through interrupted()
};
using LockWaitPtr = std::shared_ptr<LockWait>;

class LockTable {
 public:
  // `handover`: where the process before left what it knew; null: there is none.
  explicit LockTable(std::shared_ptr<Handover> handover);

  // Before the service is asked for a lock: an answer may get lost. False: there is no room.
  bool note(uint64_t inode, uint64_t owner, uint64_t fh);
  // An owner that may have locks on an inode, and whose release() is begun.
  struct Ending {
    uint64_t inode = 0;
    uint64_t owner = 0;
    std::vector<uint32_t> records;  // in the memory of the mount
  };
  // The owner, if it may have locks on the inode.
  std::optional<Ending> take_owner(uint64_t inode, uint64_t owner);
  // Those that may have locks by this handle.
  std::vector<Ending> take_handle(uint64_t inode, uint64_t fh);
  // The service has heard of it.
  void ended(const Ending& ending);
  // Around a RELEASE. `go` runs when none is under way that began before; at once if so.
  void begin_release(uint64_t inode);
  void end_release(uint64_t inode);
  void after_release(uint64_t inode, Function<void()> go);

  // False: `max` wait already.
  bool begin_wait(const LockWaitPtr& wait, size_t max);
  void end_wait(const LockWaitPtr& wait);
  size_t waiting();
  // The wait to cancel; null when none has this unique, or not yet: then begin_wait finds it so.
  LockWaitPtr interrupt(uint64_t unique);
  bool interrupted(const LockWaitPtr& wait);

 private:
  // Uniques are never used twice, so one that no wait has can stay until others push it out.
  static constexpr size_t kInterruptsKept = 256;

  using Holder = std::pair<uint64_t, uint64_t>;  // owner, handle
  struct Gate {
    size_t releases = 0;
    std::vector<Function<void()>> waiting;
  };

  const std::shared_ptr<Handover> handover_;
  std::mutex mutex_;  // guards everything below, and LockWait::interrupted
  std::unordered_map<uint64_t, std::map<Holder, uint32_t>> owners_;  // by inode; to the record
  std::unordered_map<uint64_t, Gate> gates_;                         // by inode
  std::unordered_map<uint64_t, LockWaitPtr> waits_;                  // by unique
  std::deque<uint64_t> interrupts_;
};

}  // namespace fs3::fuse
