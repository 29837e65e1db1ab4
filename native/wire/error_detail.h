// fs3.ErrorDetail: the body of every reply whose status is not 0.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace fs3::wire {

// REQUIRES: !status.ok(). Long texts are cut at 4 KiB each; bytes that are not printable ASCII or
// UTF-8 become \xNN, so that every protobuf reader takes the message.
std::string encode_error(const Status& status);
// A status of `code`; a body that does not decode gives a status without where, and says so.
Status decode_error(uint32_t code, std::string_view body);

}  // namespace fs3::wire
