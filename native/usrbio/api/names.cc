#include "usrbio/api/names.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace fs3::usrbio {

std::string uuid_text(const uint8_t id[16]) {
  char text[37];
  std::snprintf(text, sizeof text,
                "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", id[0],
                id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10], id[11],
                id[12], id[13], id[14], id[15]);
  return text;
}

void new_uuid(uint8_t id[16]) {
  ssize_t got;
  do {
    got = getrandom(id, 16, 0);
  } while (got != 16);
  id[6] = static_cast<uint8_t>((id[6] & 0x0f) | 0x40);
  id[8] = static_cast<uint8_t>((id[8] & 0x3f) | 0x80);
}

int open_iovs(const char* mount_point) {
  std::string path = std::string(mount_point) + "/3fs-virt/iovs";
  int fd = open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

int add_name(int iovs, const std::string& name, const std::string& target) {
  return symlinkat(target.c_str(), iovs, name.c_str()) == 0 ? 0 : -errno;
}

void remove_name(int iovs, const std::string& name) { (void)unlinkat(iovs, name.c_str(), 0); }

int make_shared_file(const std::string& name, size_t size) {
  std::string path = kShmDirectory + name;
  int fd = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return -errno;
  int error = posix_fallocate(fd, 0, static_cast<off_t>(size));
  if (error == 0) return fd;
  unlink(path.c_str());
  close(fd);
  return -error;
}

void* map_shared(int fd, size_t size, int numa) {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return nullptr;
  if (numa >= 0 && numa < 64) {
    // A preference: where the machine has no such node the memory lies where it lies.
    unsigned long nodes = 1ul << numa;
    (void)syscall(SYS_mbind, memory, size, MPOL_PREFERRED, &nodes, 65ul, MPOL_MF_MOVE);
  }
  return memory;
}

}  // namespace fs3::usrbio
