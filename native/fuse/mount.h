// Mount: what a mount process holds: reactors, a file system, the session between them.
//
// Thread safety: start(), stop() and the destructor from one controlling thread; the rest from any.
// Order of the end: the kernel lets go (unmount), open requests are answered (the client shuts
// down), the session goes, the reactors end.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/reactor.h"
#include "base/status.h"
#include "fuse/session.h"

namespace fs3::fuse {

// Default number of reactors: min(cores, 4). More only share the load of one kernel lock.
uint32_t default_reactors();

class Mount {
 public:
  // Makes the file system on the reactors it will run on.
  using MakeFilesystem =
      std::function<Result<std::unique_ptr<Filesystem>>(const std::vector<Reactor*>&)>;

  Mount(SessionOptions options, uint32_t reactors, MakeFilesystem make);
  virtual ~Mount();

  // Mounts. Fails when called twice.
  Status start();
  // Waits until the mount has ended (unmounted by anybody) or the time is over. True: ended.
  bool wait(int64_t timeout_ns);
  // Writes back what mapped files still hold, unmounts (lazily when `lazy` or when it is busy and
  // `force`), and ends everything. EBUSY: in use, still mounted. Idempotent.
  Status stop(bool force);

  // For a keeper: the descriptors of the connection, and that of the memory (handover.h) in front.
  // Empty unless the options have a handover, and after stop(). They are this process's.
  std::vector<int> descriptors() const;
  // Ends the service without an end of the mount, for another process: reads no further requests,
  // answers those under way, settles what was written. False: not all were answered in that time.
  // The process has to end then, at once and without stop().
  bool let_go(int64_t timeout_ns);

  bool running() const;
  bool over_uring() const;
  std::vector<OperationSample> operations() const;

 private:
  Status unmount(bool force);
  void tear_down();
  void drain_reactors();

  const SessionOptions options_;
  const uint32_t reactor_count_;
  MakeFilesystem make_;

  // Changed by start() and stop() only.
  std::vector<std::unique_ptr<ReactorThread>> reactors_;
  std::unique_ptr<Filesystem> filesystem_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<Session> session_;  // guarded by mutex_; used without it by start() and stop()
  bool started_ = false;              // guarded by mutex_
  bool ended_ = false;                // guarded by mutex_: the kernel closed the connection
};

}  // namespace fs3::fuse
