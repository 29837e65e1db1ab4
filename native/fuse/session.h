// Session: one mounted FUSE connection on a set of reactors.
//
//   kernel ── /dev/fuse read / io_uring completion ──> ClassicReader | UringQueues ──> Filesystem
//   kernel <── writev / COMMIT_AND_FETCH ───────────── Request::finish <── reply_*
//
// The classic way: every reactor has its own descriptor of the connection and answers on it. Over
// io_uring (where kernel and administrator allow it): one queue per possible CPU, queue q is owned
// by reactor q modulo the number of reactors; FORGET and INTERRUPT still arrive the classic way on
// any reactor. INTERRUPT is accepted and has no effect: every operation ends at its own deadline.
//
// Thread safety: mount() and the destructor from one controlling thread that is not a reactor; the
// rest from any thread. Invariants:
//  1. `ended` runs exactly once, on reactor 0, when the kernel has closed the connection.
//  2. The session outlives its requests: answer or drop all of them before destroying it.
//  3. No handler runs after the destructor returned.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/function.h"
#include "base/reactor.h"
#include "base/status.h"
#include "fuse/device.h"
#include "fuse/filesystem.h"
#include "fuse/handover.h"
#include "fuse/statistics.h"

namespace fs3::fuse {

enum class UringMode : uint8_t { kOff, kAuto, kRequired };

struct SessionOptions {
  MountOptions mount;
  UringMode uring = UringMode::kAuto;
  uint32_t uring_depth = 16;      // entries per queue, 1..256
  uint32_t max_background = 256;  // asynchronous requests the kernel keeps in flight
  uint32_t max_readahead = 4u << 20;
  int64_t negotiate_timeout_ns = 10'000'000'000;
  uint64_t root_inode = FUSE_ROOT_ID;  // what the file system calls the root of this mount
  // Set: the mount can be taken over by another process (handover.h), and is served the classic
  // way: over io_uring the kernel forgets the requests of a process that dies.
  std::shared_ptr<Handover> handover;
  // Of the process before (Session::descriptors()): the mount is taken over, not made.
  std::vector<int> inherited;
};

// "Y" in /sys/module/fuse/parameters/enable_uring. A missing file means the kernel cannot.
bool kernel_allows_uring();

class ClassicReader;
class UringQueues;

class Session {
 public:
  // Mounts and negotiates, or takes a mount over. On success requests are flowing. On failure
  // nothing is mounted, and a mount that was to be taken over is as it was.
  // REQUIRES: the reactors run and outlive the session.
  static Result<std::unique_ptr<Session>> mount(SessionOptions options,
                                                std::vector<Reactor*> reactors,
                                                Filesystem& filesystem, Function<void()> ended);
  // Unmounts lazily when still mounted and aborts the connection: whoever still uses it gets
  // ECONNABORTED, dirty mapped pages are lost (syncfs first).
  ~Session();

  // What a keeper has to hold, so that the mount outlives this process and its requests can be had
  // again. Valid as long as the session. REQUIRES: options.handover.
  std::vector<int> descriptors() const;
  // Reads no further requests, and waits until those under way are answered or the time is over.
  // The mount stays as it is, for another process: the destructor does not unmount it. True: all
  // are answered.
  bool let_go(int64_t timeout_ns);

  // unmount_path() of this mount. The kernel closes the connection when the last user is gone.
  Status unmount(bool lazy);
  bool over_uring() const { return over_uring_; }
  // Without links.
  const std::string& mountpoint() const { return options_.mount.mountpoint; }
  uint32_t kernel_minor() const { return kernel_minor_; }
  OperationStatistics& statistics() { return statistics_; }

  // Takes no lock in the kernel; may be called on a reactor, for instance before a reply.
  Status invalidate_attributes(uint64_t node);
  // Queued for a thread of their own (see device.h); at most kNotificationsMax wait, further ones
  // are refused with EAGAIN.
  // `done` when the kernel has done it.
  Status invalidate_data(uint64_t node, int64_t offset, int64_t length, Function<void()> done = {});
  Status invalidate_entry(uint64_t parent, std::string name);
  // Makes the kernel send the dirty pages of the node as WRITE, and drop the others; `done` runs on
  // the thread of the notifications when they have been answered. Not at all when the session ends.
  Status flush_pages(uint64_t node, Function<void()> done);
  static constexpr size_t kNotificationsMax = 65'536;

  // For the readers: the kernel closed the connection.
  void connection_closed();
  // For the readers: hands a request to the filesystem, or answers what the session answers itself.
  void dispatch(RequestPtr request, bool known);
  // For the classic reader: requests between being read and being answered.
  std::atomic<int64_t>& under_way() { return under_way_; }

 private:
  Session(SessionOptions options, std::vector<Reactor*> reactors, Filesystem& filesystem,
          Function<void()> ended);
  // The steps of mount(), in order.
  Status make_mount();
  Status take_over();
  Status open_devices();
  Status negotiate();
  Result<Bytes> read_init(std::byte* memory, size_t size);
  Status prepare_queues();
  Status reply_init(uint64_t unique, const fuse_init_out& out);
  Status start_readers();

  // What the kernel calls an inode.
  uint64_t node_of(uint64_t inode) const {
    return inode == options_.root_inode ? uint64_t{FUSE_ROOT_ID} : inode;
  }
  void notification_loop();
  Status enqueue_notification(Function<Status()> notification);

  // Constant after mount().
  SessionOptions options_;
  const std::vector<Reactor*> reactors_;
  Filesystem& filesystem_;
  std::shared_ptr<Device> device_;
  uint32_t connection_ = 0;
  uint32_t kernel_minor_ = 0;
  bool over_uring_ = false;
  bool resends_ = false;
  // What the readers read from, by turns; the keeper holds them as well when the kernel can send
  // requests again. If it cannot, it holds device_ alone: requests that were read from another
  // descriptor end with an error when that is closed, and their callers do not wait for ever.
  std::vector<std::shared_ptr<Device>> devices_;
  // One per reactor, each used only on its reactor once it runs.
  std::vector<std::unique_ptr<ClassicReader>> readers_;
  std::vector<std::unique_ptr<UringQueues>> queues_;

  OperationStatistics statistics_;
  std::atomic<int64_t> under_way_{0};
  bool let_go_ = false;  // the controlling thread's

  // Only on reactor 0.
  Function<void()> ended_;
  bool closed_ = false;

  // Guarded by notify_mutex_.
  std::mutex notify_mutex_;
  std::condition_variable notify_changed_;
  std::deque<Function<Status()>> notifications_;
  bool notify_stop_ = false;
  std::thread notifier_;
};

}  // namespace fs3::fuse
