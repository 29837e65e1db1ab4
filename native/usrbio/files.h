// RingFiles: what the rings of a mount do I/O on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/buffer.h"
#include "base/function.h"
#include "base/status.h"

namespace fs3::usrbio {

// As in a slot of a ring: both numbers are the program's word.
struct FileName {
  uint64_t file = 0;
  uint64_t key = 0;
  uint32_t uid = 0;  // of who registered the ring
};

class RingFiles {
 public:
  virtual ~RingFiles() = default;
  // Called on any reactor; `done` may run inside the call or later, on any. EBADF: there is no such
  // open file, or the key is wrong; EACCES: it was not opened for that.
  //
  // Short only at the end of the file. `into` is valid until `done`. Holes are zeros, or ENODATA.
  virtual void ring_read(const FileName& name, uint64_t offset, std::byte* into, size_t length,
                         bool refuse_holes, Function<void(Result<size_t>)> done) = 0;
  // `done` when the bytes are on all replicas, and every later read of this host sees them.
  virtual void ring_write(const FileName& name, uint64_t offset, Buffer data,
                          Function<void(Result<size_t>)> done) = 0;
};

}  // namespace fs3::usrbio
