#include "disk/io_queue.h"

#include <cerrno>

#include "base/check.h"
#include "disk/disk.h"

namespace fs3::disk {

bool IoRequest::advance(int64_t outcome, int64_t* result) {
  if (outcome == -EINTR || outcome == -EAGAIN) return false;
  if (outcome < 0) {
    *result = outcome;
    return true;
  }
  if (kind != Kind::kRead && kind != Kind::kWrite) {
    *result = 0;
    return true;
  }
  FS3_CHECK(static_cast<uint64_t>(outcome) <= length - transferred);
  transferred += static_cast<uint64_t>(outcome);
  bool ended = kind == Kind::kRead && (outcome == 0 || transferred % kSector != 0);
  if (kind == Kind::kWrite && outcome == 0) {  // a device that takes nothing and says nothing
    *result = -EIO;
    return true;
  }
  if (transferred < length && !ended) return false;
  *result = static_cast<int64_t>(transferred);
  return true;
}

}  // namespace fs3::disk
