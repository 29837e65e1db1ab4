// One ring as the program sees it (usrbio/ring.h).
//
// Thread safety: every method from any thread; several threads and forked processes may share it.
// Ownership: the process that made it unregisters it when it is destroyed; others only unmap it.
// Errors are negative errnos, as the ABI has them.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <memory>
#include <string>

#include "usrbio/hf3fs_usrbio.h"
#include "usrbio/ring.h"

namespace fs3::usrbio {

class RingClient {
 public:
  struct Options {
    uint32_t entries;
    bool for_read;
    int io_depth, priority, timeout_ms, numa;
    uint64_t flags;
  };
  // Made in /dev/shm and registered with the mount. Nothing of it has a name afterwards but the
  // entry in 3fs-virt/iovs.
  static int create(const char* mount_point, const Options& options,
                    std::unique_ptr<RingClient>* made);
  ~RingClient();
  RingClient(const RingClient&) = delete;
  RingClient& operator=(const RingClient&) = delete;

  void* memory() const { return memory_; }
  size_t bytes() const { return bytes_; }
  const uint8_t* id() const { return id_; }
  uint32_t entries() const { return view_.entries(); }

  // A slot with this request, ready to be taken; -EAGAIN: none is free. `request.sequence` is set
  // here.
  int prepare(Request request, uint64_t userdata);
  // Rings the bell if the mount sleeps.
  int submit();
  // As hf3fs_wait_for_ios.
  int wait(hf3fs_cqe* results, int results_max, int results_min, const timespec* abs_timeout);
  // Pollable from now on.
  int event_fd();

 private:
  RingClient() = default;
  int make_files(const std::string& name, const Options& options);
  int count_done() const;
  int reap(hf3fs_cqe* results, int results_max);
  void drain_event();
  void note_event_left();
  // What ended the ring, negative; 0 while it is served. `ask`: the mount is asked.
  int ended(bool ask) const;

  pid_t maker_ = 0;
  int iovs_ = -1;
  int bell_ = -1;
  int event_ = -1;
  void* memory_ = nullptr;
  size_t bytes_ = 0;
  uint8_t id_[16] = {};
  std::string link_;
  RingView view_;
  std::atomic<uint32_t> search_from_{0};
};

}  // namespace fs3::usrbio
