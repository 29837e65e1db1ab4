// UringQueues: the FUSE-over-io_uring queues of one reactor.
//
// Each entry is a pair of buffers registered with the kernel: header and payload. The kernel fills
// one with a request and completes its command; the reply is written into the same buffers and
// committed by a command that at the same time asks for the next request:
//
//   REGISTER -> (request) -> handler -> reply -> COMMIT_AND_FETCH -> (request) -> ...
//
// Replies of one round of the reactor are submitted by one system call. An entry is the Request.
//
// Thread safety: start() and events on the reactor; replies from any thread (posted). Ownership: an
// entry's buffers belong to the kernel while its command is pending, to the handler in between.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/buffer.h"
#include "base/reactor.h"
#include "base/status.h"
#include "fuse/device.h"
#include "fuse/kernel.h"
#include "fuse/request.h"

namespace fs3::fuse {

class Session;

class UringQueues : public Reactor::FdHandler {
 public:
  UringQueues(Session& session, Reactor& reactor, std::shared_ptr<Device> device,
              std::vector<uint16_t> queue_ids, uint32_t depth);
  ~UringQueues() override;

  // Makes the ring: fails where the kernel cannot. REQUIRES: on the reactor; before INIT is
  // answered.
  Status prepare();
  // Gives all entries to the kernel. REQUIRES: prepared; INIT answered with io_uring on.
  void register_entries();
  // Takes the ring off the reactor and waits (at most a second) until the kernel has let go of the
  // entries. REQUIRES: on the reactor; the connection is closed or aborted.
  void stop();

  void on_events(uint32_t events) override;

 private:
  class Entry;

  void stay_with_callers();
  void prepare_command(Entry& entry, uint32_t command);
  void commit(Entry& entry);
  void schedule_flush();
  // Submits commands, takes completions, until nothing is left or the round's share is used up.
  void run();
  bool take_completions();
  void completed(Entry& entry, int result);

  Session& session_;
  Reactor& reactor_;
  const std::shared_ptr<Device> device_;
  const std::vector<uint16_t> queue_ids_;
  const uint32_t depth_;

  // Only on the reactor.
  io_uring ring_{};
  bool ring_made_ = false;
  bool on_reactor_ = false;
  int event_fd_ = -1;
  size_t pending_ = 0;    // commands given to the kernel and not completed
  bool running_ = false;  // run() is on the stack: it will submit what is queued
  bool flush_scheduled_ = false;
  std::vector<Entry> entries_;
};

}  // namespace fs3::fuse
