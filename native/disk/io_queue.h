// IoQueue: hands file operations to the kernel and calls back on the reactor's thread.
//
// Two ways: an io_uring whose descriptor hangs in the reactor's epoll (submissions of one round go
// in one system call), and a few threads that make blocking calls, where the kernel offers no
// io_uring.
// Thread safety: submit on the reactor's thread (or before it runs). Ownership: the request, with
// its buffer, belongs to the queue until its call back. The destructor waits for operations the
// kernel has begun and drops their callbacks; it must not run inside a callback.
#pragma once

#include <cstdint>
#include <memory>

#include "base/buffer.h"
#include "base/function.h"
#include "base/reactor.h"
#include "base/status.h"

namespace fs3::disk {

struct IoRequest {
  enum class Kind : uint8_t { kRead, kWrite, kDatasync, kAllocate, kPunch };

  Kind kind = Kind::kRead;
  int fd = -1;
  std::shared_ptr<void> keeps_open;  // the owner of fd
  uint64_t offset = 0;
  uint64_t length = 0;
  Buffer buffer;                 // kRead, kWrite: length bytes
  uint64_t transferred = 0;      // of them, done so far
  Function<void(int64_t)> done;  // bytes transferred, or 0; or a negative errno

  // Takes in the outcome of one system call. Returns true when the request is over and `result`
  // holds what `done` gets; false when the rest must be submitted again.
  bool advance(int64_t outcome, int64_t* result);
};

class IoQueue {
 public:
  virtual ~IoQueue() = default;
  virtual void submit(std::unique_ptr<IoRequest> request) = 0;
  virtual const char* name() const = 0;
};

// Fails where the kernel or its policy has no io_uring.
Result<std::unique_ptr<IoQueue>> make_uring_queue(Reactor& reactor);
std::unique_ptr<IoQueue> make_thread_queue(Reactor& reactor);

}  // namespace fs3::disk
