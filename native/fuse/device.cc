#include "fuse/device.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "fuse/kernel.h"

extern char** environ;

namespace fs3::fuse {
namespace {

constexpr const char* kFusermount = "fusermount3";

Status system_error(std::string_view where, std::string what, int number = errno) {
  return Status(static_cast<uint32_t>(number), where,
                std::move(what) + ": " + std::strerror(number));
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const auto& part : parts) text += (text.empty() ? "" : ",") + part;
  return text;
}

Status set_nonblocking(int fd) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
      fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return system_error("fuse/mount", "fcntl on /dev/fuse");
  }
  return Status();
}

std::vector<std::string> common_options(const MountOptions& options) {
  std::vector<std::string> parts;
  if (options.allow_other) parts.push_back("allow_other");
  if (options.default_permissions) parts.push_back("default_permissions");
  parts.push_back("max_read=" + std::to_string(kMaxTransfer));
  return parts;
}

Result<std::shared_ptr<Device>> mount_as_root(const MountOptions& options) {
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return system_error("fuse/mount", "open /dev/fuse (is the fuse module loaded?)");
  }
  auto device = std::make_shared<Device>(fd);
  std::vector<std::string> parts = common_options(options);
  parts.insert(parts.begin(),
               {"fd=" + std::to_string(fd), "rootmode=40000", "user_id=0", "group_id=0"});
  unsigned long flags = 0;
  if (options.read_only) flags |= MS_RDONLY;
  if (!options.allow_suid) flags |= MS_NOSUID;
  if (!options.allow_dev) flags |= MS_NODEV;
  std::string type = "fuse." + options.subtype;
  if (mount(options.source.c_str(), options.mountpoint.c_str(), type.c_str(), flags,
            join(parts).c_str()) != 0) {
    return system_error("fuse/mount", "mount(2) on " + options.mountpoint);
  }
  return device;
}

// The descriptor that fusermount3 sends over the socket, or -1 when it closed it without.
int receive_descriptor(int socket) {
  char byte;
  iovec vector{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got;
  do {
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) return -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return -1;
  int fd;
  std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

// Runs fusermount3 and returns its exit status; `socket` (or -1) becomes descriptor 3 of it.
Result<int> run_fusermount(std::vector<std::string> arguments, int socket) {
  std::vector<char*> argv{const_cast<char*>(kFusermount)};
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::string commfd = "_FUSE_COMMFD=3";
  std::vector<char*> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, "_FUSE_COMMFD=", 13) != 0) environment.push_back(*variable);
  }
  if (socket >= 0) environment.push_back(commfd.data());
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (socket >= 0) posix_spawn_file_actions_adddup2(&actions, socket, 3);
  pid_t pid;
  int failed = posix_spawnp(&pid, kFusermount, &actions, nullptr, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) {
    return system_error("fuse/mount", "start fusermount3 (install fuse3, or mount as root)",
                        failed);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno == ECHILD) return 0;  // somebody else collects the children of this process
    if (errno != EINTR) return system_error("fuse/mount", "waitpid of fusermount3");
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

Result<std::shared_ptr<Device>> mount_as_user(const MountOptions& options) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return system_error("fuse/mount", "socketpair");
  }
  std::vector<std::string> parts = common_options(options);
  parts.push_back("fsname=" + options.source);
  parts.push_back("subtype=" + options.subtype);
  if (options.read_only) parts.push_back("ro");
  // Descriptor 3 itself would keep close-on-exec when it is duplicated onto itself.
  int peer = fcntl(sockets[1], F_DUPFD_CLOEXEC, 10);
  close(sockets[1]);
  auto status = run_fusermount({"-o", join(parts), "--", options.mountpoint}, peer);
  close(peer);
  int fd = status.ok() && *status == 0 ? receive_descriptor(sockets[0]) : -1;
  close(sockets[0]);
  if (!status.ok()) return status.status();
  if (fd < 0) {
    return Status(
        EPERM, "fuse/mount",
        "fusermount3 refused to mount " + options.mountpoint +
            (options.allow_other ? " (allow_other needs user_allow_other in /etc/fuse.conf)" : ""));
  }
  auto device = std::make_shared<Device>(fd);
  Status nonblocking = set_nonblocking(fd);
  if (!nonblocking.ok()) return nonblocking;
  return device;
}

// mountinfo writes space, tab, newline and backslash as three octal digits.
std::string unescape_octal(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    int value = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, value, 8).ec == std::errc()) {
      plain.push_back(static_cast<char>(value));
      i += 3;
    } else {
      plain.push_back(text[i]);
    }
  }
  return plain;
}

Status notify(const Device& device, int code, const void* fixed, size_t fixed_size,
              std::string_view name) {
  fuse_out_header header{};
  header.error = code;
  char end = 0;
  iovec parts[4] = {{&header, sizeof header},
                    {const_cast<void*>(fixed), fixed_size},
                    {const_cast<char*>(name.data()), name.size()},
                    {&end, name.empty() ? 0u : 1u}};
  for (const iovec& part : parts) header.len += static_cast<uint32_t>(part.iov_len);
  if (writev(device.fd(), parts, 4) >= 0 || errno == ENOENT) return Status();
  return system_error("fuse/notify", "write to /dev/fuse");
}

}  // namespace

Device::~Device() { close(fd_); }

Result<std::shared_ptr<Device>> Device::clone() const {
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return system_error("fuse/clone", "open /dev/fuse");
  auto device = std::make_shared<Device>(fd);
  uint32_t source = static_cast<uint32_t>(fd_);
  if (ioctl(fd, FUSE_DEV_IOC_CLONE, &source) != 0) {
    return system_error("fuse/clone", "ioctl FUSE_DEV_IOC_CLONE");
  }
  return device;
}

Result<std::shared_ptr<Device>> mount_device(const MountOptions& options) {
  return geteuid() == 0 ? mount_as_root(options) : mount_as_user(options);
}

namespace {

// What touches the mount runs in a child. A thread that waits for a reply of the mount cannot be
// killed, and the daemon's own would wait for itself: killed meanwhile, the process would stay for
// ever, because the connection ends when the descriptor that it still holds is closed. The child
// holds no descriptor of ours. Returns the errno that `work` returned.
template <typename Work>
Result<int> in_child(Work work) {
  pid_t pid = _Fork();
  if (pid < 0) return system_error("fuse/unmount", "_Fork");
  if (pid == 0) {
    // Only calls that are safe in the child of a process with threads.
    close_range(0, ~0u, 0);
    _exit(work());
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno == ECHILD) return 0;  // somebody else collects the children of this process
    if (errno != EINTR) return system_error("fuse/unmount", "waitpid");
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

int error_of(int result) { return result == 0 ? 0 : errno; }

Status unmount_as_root(const char* mountpoint, bool lazy) {
  int flags = UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0);
  auto error = in_child([=] { return error_of(umount2(mountpoint, flags)); });
  if (!error.ok() || *error == 0) return error.status();
  return system_error("fuse/unmount", std::string("umount2 of ") + mountpoint, *error);
}

}  // namespace

void sync_path(const std::string& mountpoint) {
  (void)in_child([path = mountpoint.c_str()] {
    int directory = open(path, O_RDONLY | O_DIRECTORY);
    return directory < 0 ? errno : error_of(syncfs(directory));
  });
}

Status unmount_path(const std::string& mountpoint, bool lazy) {
  if (geteuid() == 0) return unmount_as_root(mountpoint.c_str(), lazy);
  std::vector<std::string> arguments{"-u", "-q"};
  if (lazy) arguments.push_back("-z");
  arguments.push_back("--");
  arguments.push_back(mountpoint);
  auto status = run_fusermount(std::move(arguments), -1);
  if (!status.ok()) return status.status();
  if (*status == 0) return Status();
  return Status(EBUSY, "fuse/unmount", "fusermount3 -u could not unmount " + mountpoint);
}

// Lines look like "36 35 0:52 / /mnt rw,nosuid - fuse.fs3 fs3 rw,..."; the last one for a path is
// the topmost mount.
uint32_t connection_number(const std::string& mountpoint) {
  std::ifstream file("/proc/self/mountinfo");
  uint32_t found = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, root, path;
    fields >> id >> parent >> device >> root >> path;
    if (unescape_octal(path) != mountpoint) continue;
    size_t colon = device.find(':');
    bool type = line.find(" - fuse.fs3 ") != std::string::npos ||
                line.find(" - fuse.hf3fs ") != std::string::npos;
    bool ours = type && colon != std::string::npos;
    uint32_t minor = 0;
    if (ours) std::from_chars(device.data() + colon + 1, device.data() + device.size(), minor);
    found = minor;
  }
  return found;
}

void abort_connection(uint32_t number) {
  if (number == 0) return;
  std::ofstream file("/sys/fs/fuse/connections/" + std::to_string(number) + "/abort");
  file << "1";
}

Status resend_requests(const Device& device) {
  return notify(device, kNotifyResend, nullptr, 0, {});
}

Status invalidate_data(const Device& device, uint64_t node, int64_t offset, int64_t length) {
  fuse_notify_inval_inode_out out{node, offset, length};
  return notify(device, FUSE_NOTIFY_INVAL_INODE, &out, sizeof out, {});
}

Status invalidate_attributes(const Device& device, uint64_t node) {
  return invalidate_data(device, node, -1, 0);
}

Status invalidate_entry(const Device& device, uint64_t parent, std::string_view name) {
  fuse_notify_inval_entry_out out{parent, static_cast<uint32_t>(name.size()), 0};
  return notify(device, FUSE_NOTIFY_INVAL_ENTRY, &out, sizeof out, name);
}

}  // namespace fs3::fuse
