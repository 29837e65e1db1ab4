// A directory of the host's file system as a Disk.
//
// Files are opened with O_DIRECT where the file system has it, else through the page cache; data
// travels by io_uring where the kernel has it, else by a few threads. Both are decided once, at
// open, and named in the statistics.
#pragma once

#include <memory>
#include <string>

#include "base/reactor.h"
#include "base/status.h"
#include "disk/disk.h"

namespace fs3::disk {

struct PosixDiskOptions {
  std::string directory;
  bool create = false;     // make the directory, not its parents, when it is not there
  bool use_uring = true;   // false: threads
  bool use_direct = true;  // false: page cache
};

// Errors name the path and the system call.
Result<std::unique_ptr<Disk>> open_posix_disk(Reactor& reactor, PosixDiskOptions options);

}  // namespace fs3::disk
