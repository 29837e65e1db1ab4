// Packs READDIR and READDIRPLUS replies.
//
// Invariant: an entry is packed whole or not at all; entries are padded to 8 bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fuse/kernel.h"

namespace fs3::fuse {

class DirentPacker {
 public:
  // Packs into `space`, at most `size` bytes.
  DirentPacker(std::byte* space, size_t size) : space_(space), size_(size) {}

  // `offset`: what the kernel sends back to continue after this entry. `type`: DT_*. False: full.
  bool add(std::string_view name, uint64_t node, uint32_t type, uint64_t offset);
  // The same with attributes. An entry whose nodeid is 0 only names the object: the kernel then
  // looks it up itself.
  bool add_plus(std::string_view name, uint64_t node, uint32_t type, uint64_t offset,
                const fuse_entry_out& entry);

  size_t used() const { return used_; }

 private:
  std::byte* reserve(size_t length);
  static void put(std::byte* at, std::string_view name, uint64_t node, uint32_t type,
                  uint64_t offset);

  std::byte* space_;
  size_t size_;
  size_t used_ = 0;
};

}  // namespace fs3::fuse
