// SharedMemory: a mapping of a file that another process may change, and cut, at any time.
//
// A page that the file no longer has raises SIGBUS in whoever touches it, and EFAULT in a system
// call. Neither may end this process for what another one did: on SIGBUS the whole mapping becomes
// zero pages of this process and is marked lost; who gets EFAULT calls replace_lost_memory() and
// tries again. A page that the file could not get, because /dev/shm is full, counts the same.
//
// What lies in such memory can change between two looks at it: copy once, then check the copy.
//
// Thread safety: everything from any thread. The signal handler is installed with the first mapping
// and passes on what is not ours.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "base/status.h"

namespace fs3 {

class SharedMemory {
 public:
  static constexpr size_t kMappingsMax = 16'384;

  // The first `size` bytes of the file; `fd` is not needed afterwards. ENOMEM: too many mappings.
  static Result<std::shared_ptr<SharedMemory>> map(int fd, size_t size);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  // The file was cut: nothing that is read here comes from it any more, or goes to it.
  bool lost() const;

 private:
  SharedMemory(std::byte* data, size_t size, size_t slot) : data_(data), size_(size), slot_(slot) {}
  std::byte* const data_;
  const size_t size_;
  const size_t slot_;
};

// True when [address, address + length) touches such a mapping: it is zero pages now, and lost.
bool replace_lost_memory(const void* address, size_t length);

// Whether the address lies in such a mapping.
bool is_shared_memory(const void* address);

}  // namespace fs3
