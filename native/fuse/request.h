// Request: one operation that the kernel asked for, and the one reply it gets.
//
// Ownership: a RequestPtr is the right to reply. reply_*() consume it, so a second reply does not
// compile; a RequestPtr that is dropped without a reply answers EIO. Thread safety: a request may
// be moved between threads and replied to from any of them.
//
// Invariants:
//  1. Exactly one reply per request (none for FORGET and INTERRUPT: reply_nothing).
//  2. Everything a request points to (arguments, payload, reply_space) is valid until the reply.
//  3. After the reply the memory may already carry the next request: keep nothing.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "base/buffer.h"
#include "base/check.h"
#include "fuse/decode.h"
#include "fuse/kernel.h"
#include "fuse/statistics.h"

namespace fs3::fuse {

class Request {
 public:
  uint32_t opcode() const { return header_.opcode; }
  uint64_t unique() const { return header_.unique; }
  uint64_t node() const { return header_.nodeid; }
  // For the session: the kernel calls the root of every mount FUSE_ROOT_ID.
  void set_root(uint64_t inode);
  uint32_t uid() const { return header_.uid; }
  uint32_t gid() const { return header_.gid; }
  uint32_t pid() const { return header_.pid; }

  // The fixed header of the operation. REQUIRES: T is the type of this opcode.
  template <typename T>
  const T& arguments() const {
    FS3_CHECK(sizeof(T) <= operation_.size());
    return *reinterpret_cast<const T*>(operation_.data());
  }
  Bytes payload() const { return payload_; }
  // The payload as memory that may live longer than the request (data of a WRITE). `length` is at
  // most payload().size().
  virtual Buffer payload_buffer(size_t length) = 0;
  // Memory for a reply of up to `length` bytes, so that data is produced where the kernel takes it.
  // REQUIRES: length <= kMaxTransfer; one call per request.
  virtual std::byte* reply_space(size_t length) = 0;

  // Sends and recycles. `error` is 0 or a positive errno; `data` may lie in reply_space(). Use the
  // reply_* functions.
  virtual void finish(int error, const void* data, size_t length) = 0;
  virtual void finish_without_reply() = 0;

 protected:
  virtual ~Request() = default;
  fuse_in_header header_{};
  Bytes operation_;
  Bytes payload_;
  int64_t started_ns_ = 0;
  OperationStatistics* statistics_ = nullptr;
};

struct DropRequest {
  void operator()(Request* request) const;
};
using RequestPtr = std::unique_ptr<Request, DropRequest>;

void reply_error(RequestPtr request, int error);  // 0 = success without data
void reply_bytes(RequestPtr request, const void* data, size_t length);
// The first `length` bytes of reply_space().
void reply_filled(RequestPtr request, const std::byte* space, size_t length);
void reply_nothing(RequestPtr request);
template <typename T>
void reply_value(RequestPtr request, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  reply_bytes(std::move(request), &value, sizeof value);
}

}  // namespace fs3::fuse
