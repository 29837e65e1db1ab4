// The /dev/fuse descriptor: mounting, unmounting, cloning, notifications.
//
// Thread safety: every function from any thread. All of them are blocking system calls, short ones
// except mount and unmount.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fs3::fuse {

struct MountOptions {
  std::string mountpoint;
  std::string source = "fs3";   // first column of /proc/mounts
  std::string subtype = "fs3";  // the type is fuse.SUBTYPE; some clients of 3FS look for hf3fs
  bool allow_other = false;     // root mounts: true is usual; ordinary users need user_allow_other
  bool read_only = false;
  bool allow_suid = false;  // default: nosuid,nodev
  bool allow_dev = false;
  // The kernel checks modes as well. Without it a name that one user looked up could be walked
  // through by another, because cached names are not looked up again.
  bool default_permissions = true;
};

// One open /dev/fuse descriptor. Requests keep it alive until they are answered.
class Device {
 public:
  explicit Device(int fd) : fd_(fd) {}
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  int fd() const { return fd_; }

  // Another descriptor of the same connection. Requests read from it are answered on it.
  Result<std::shared_ptr<Device>> clone() const;

 private:
  int fd_;
};

// Mounts. As root by mount(2), else by fusermount3. The descriptor is non-blocking.
Result<std::shared_ptr<Device>> mount_device(const MountOptions& options);

// `lazy`: out of the name space at once, gone when the last user is. Errors are those of
// umount2(2); EINVAL: nothing is mounted there.
Status unmount_path(const std::string& mountpoint, bool lazy);

// Writes back what shared mappings still hold. From a child process: never by a thread of the
// daemon that answers the mount.
void sync_path(const std::string& mountpoint);

// The number of the connection under /sys/fs/fuse/connections; 0 when nothing of ours is mounted
// there. Reads /proc/self/mountinfo, never the mount itself. REQUIRES: an absolute path without
// links.
uint32_t connection_number(const std::string& mountpoint);

// Ends the connection at once: every waiting system call gets ECONNABORTED. No effect on 0.
void abort_connection(uint32_t number);

// Asks for the requests again that were read from any descriptor of the connection and not
// answered; their unique ids have kUniqueResend set then. Linux 6.9.
Status resend_requests(const Device& device);

// Tell the kernel to forget what it cached. They may wait for locks that are held until a request
// of this session is answered: never call them on a reactor, except invalidate_attributes, which
// takes no lock. Ok when the kernel knows nothing of the object.
Status invalidate_data(const Device& device, uint64_t node, int64_t offset, int64_t length);
Status invalidate_attributes(const Device& device, uint64_t node);
Status invalidate_entry(const Device& device, uint64_t parent, std::string_view name);

}  // namespace fs3::fuse
