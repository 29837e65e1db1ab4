// Decoding of classic requests and of the names inside payloads. Pure functions: bounds first,
// nothing allocated.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/status.h"
#include "fuse/kernel.h"

namespace fs3::fuse {

using Bytes = std::span<const std::byte>;

// A request taken apart; the parts point into the message.
struct Decoded {
  fuse_in_header header{};
  Bytes operation;     // the fixed header of the operation; empty for unknown operations
  Bytes payload;       // what follows it, without extensions
  bool known = false;  // operation_header_size() has it
};

// One message as read(2) from /dev/fuse returns it. On failure the status names the field; `header`
// of a message that is long enough to have one can still be read to answer it.
Result<Decoded> decode_request(Bytes message);

// Takes a NUL-terminated name of 1..`max` bytes without '/' from the front of `payload`. 0, or the
// errno to answer with: ENAMETOOLONG, or EINVAL for a name that is missing, empty or has a slash;
// `payload` is then unchanged.
int take_name(Bytes& payload, std::string_view* name, size_t max = kNameMax);

// Takes a NUL-terminated string of 1..`max` bytes (a symbolic link's target). As take_name.
int take_string(Bytes& payload, std::string_view* text, size_t max);

}  // namespace fs3::fuse
