// The C ABI (usrbio/hf3fs_usrbio.h): arguments are checked here, the work is done elsewhere.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "usrbio/api/descriptors.h"
#include "usrbio/api/mount_points.h"
#include "usrbio/api/names.h"
#include "usrbio/api/ring_client.h"
#include "usrbio/hf3fs_usrbio.h"
#include "usrbio/ioctl.h"
#include "usrbio/ring.h"

#define FS3_EXPORT extern "C" __attribute__((visibility("default")))

using namespace fs3::usrbio;

static_assert(sizeof(hf3fs_iov) == 312 && sizeof(hf3fs_ior) == 600 && sizeof(hf3fs_cqe) == 24);
static_assert(HF3FS_IOR_ALLOW_READ_UNCOMMITTED == kAllowUncommitted);
static_assert(HF3FS_IOR_FORBID_READ_HOLES == kForbidHoles);

namespace {

// Behind hf3fs_iov.iovh, for memory that this library has mapped.
struct Mapping {
  pid_t maker = 0;       // 0: opened, somebody else made it
  std::string shm_path;  // empty once it is unlinked
  std::string link;
  int iovs = -1;

  ~Mapping() {
    if (iovs >= 0) close(iovs);
  }
  bool own() const { return maker == getpid(); }
};

bool fits(const char* mount_point) {
  return mount_point != nullptr && std::strlen(mount_point) < sizeof(hf3fs_iov::mount_point);
}

void fill(hf3fs_iov* iov, void* base, void* handle, const uint8_t id[16], const char* mount_point,
          size_t size, size_t block_size, int numa) {
  std::memset(iov, 0, sizeof *iov);
  iov->base = static_cast<uint8_t*>(base);
  iov->iovh = handle;
  std::memcpy(iov->id, id, sizeof iov->id);
  std::strcpy(iov->mount_point, mount_point);
  iov->size = size;
  iov->block_size = block_size;
  iov->numa = numa;
}

int map_made(Mapping& mapping, const std::string& name, size_t size, int numa, void** base) {
  int fd = make_shared_file(name, size);
  if (fd < 0) return fd;
  mapping.shm_path = kShmDirectory + name;
  *base = map_shared(fd, size, numa);
  int error = *base == nullptr ? -errno : 0;
  close(fd);
  if (error == 0) error = add_name(mapping.iovs, mapping.link, mapping.shm_path);
  if (error == 0) return 0;
  if (*base != nullptr) munmap(*base, size);
  unlink(mapping.shm_path.c_str());
  return error;
}

// The path that a registered name leads to: of the plain name, or of one with a block size.
int shared_path(int iovs, const std::string& uuid, size_t block_size, std::string* path) {
  char target[PATH_MAX];
  std::string names[] = {uuid, uuid + ".b" + std::to_string(block_size)};
  for (const std::string& name : names) {
    ssize_t length = readlinkat(iovs, name.c_str(), target, sizeof target);
    if (length <= 0) continue;
    path->assign(target, static_cast<size_t>(length));
    return 0;
  }
  return -errno;
}

int map_opened(const std::string& path, size_t* size, int numa, void** base) {
  int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return -errno;
  struct stat info{};
  int error = fstat(fd, &info) == 0 ? 0 : -errno;
  auto whole = static_cast<size_t>(info.st_size);
  if (error == 0 && (whole == 0 || *size > whole)) error = -EINVAL;
  if (error == 0) {
    if (*size == 0) *size = whole;
    *base = map_shared(fd, *size, numa);
    if (*base == nullptr) error = -errno;
  }
  close(fd);
  return error;
}

RingClient* ring_of(const hf3fs_ior* ior) {
  return ior == nullptr ? nullptr : static_cast<RingClient*>(ior->iorh);
}

int create_ring(hf3fs_ior* ior, const char* mount_point, int entries, bool for_read, int io_depth,
                int priority, int timeout, int numa, uint64_t flags) {
  if (ior == nullptr || !fits(mount_point) || entries <= 0 ||
      static_cast<uint32_t>(entries) > kEntriesMax || io_depth > entries || io_depth < -entries) {
    return -EINVAL;
  }
  std::unique_ptr<RingClient> ring;
  int error = RingClient::create(mount_point,
                                 {.entries = static_cast<uint32_t>(entries),
                                  .for_read = for_read,
                                  .io_depth = io_depth,
                                  .priority = priority,
                                  .timeout_ms = timeout,
                                  .numa = numa,
                                  .flags = flags},
                                 &ring);
  if (error != 0) return error;
  std::memset(ior, 0, sizeof *ior);
  fill(&ior->iov, ring->memory(), nullptr, ring->id(), mount_point, ring->bytes(), 0, numa);
  std::strcpy(ior->mount_point, mount_point);
  ior->for_read = for_read;
  ior->io_depth = io_depth;
  ior->priority = priority;
  ior->timeout = timeout;
  ior->flags = flags;
  ior->iorh = ring.release();
  return 0;
}

}  // namespace

FS3_EXPORT bool hf3fs_is_hf3fs(int fd) {
  uint32_t magic = 0;
  return fd >= 0 && ioctl(fd, kIoctlMagic, &magic) == 0 && magic == HF3FS_SUPER_MAGIC;
}

FS3_EXPORT int hf3fs_extract_mount_point(char* buffer, int size, const char* path) {
  if (path == nullptr) return -1;
  std::string found = find_mount_point(path);
  if (found.empty()) return -1;
  int needed = static_cast<int>(found.size()) + 1;
  if (buffer != nullptr && needed <= size) std::memcpy(buffer, found.c_str(), needed);
  return needed;
}

FS3_EXPORT int hf3fs_iovcreate(hf3fs_iov* iov, const char* mount_point, size_t size,
                               size_t block_size, int numa) {
  if (iov == nullptr || !fits(mount_point) || size == 0 || size > SSIZE_MAX) return -EINVAL;
  auto mapping = std::make_unique<Mapping>();
  mapping->iovs = open_iovs(mount_point);
  if (mapping->iovs < 0) return mapping->iovs;
  uint8_t id[16];
  new_uuid(id);
  std::string uuid = uuid_text(id);
  mapping->maker = getpid();
  mapping->link = block_size == 0 ? uuid : uuid + ".b" + std::to_string(block_size);
  void* base = nullptr;
  int error = map_made(*mapping, "fs3-iov-" + uuid, size, numa, &base);
  if (error != 0) return error;
  fill(iov, base, mapping.release(), id, mount_point, size, block_size, numa);
  return 0;
}

FS3_EXPORT int hf3fs_iovopen(hf3fs_iov* iov, const uint8_t id[16], const char* mount_point,
                             size_t size, size_t block_size, int numa) {
  if (iov == nullptr || id == nullptr || !fits(mount_point) || size > SSIZE_MAX) return -EINVAL;
  auto mapping = std::make_unique<Mapping>();
  mapping->iovs = open_iovs(mount_point);
  if (mapping->iovs < 0) return mapping->iovs;
  std::string path;
  void* base = nullptr;
  int error = shared_path(mapping->iovs, uuid_text(id), block_size, &path);
  if (error == 0) error = map_opened(path, &size, numa, &base);
  if (error != 0) return error;
  fill(iov, base, mapping.release(), id, mount_point, size, block_size, numa);
  return 0;
}

FS3_EXPORT int hf3fs_iovwrap(hf3fs_iov* iov, void* base, const uint8_t id[16],
                             const char* mount_point, size_t size, size_t block_size, int numa) {
  if (iov == nullptr || base == nullptr || id == nullptr || !fits(mount_point) || size == 0) {
    return -EINVAL;
  }
  fill(iov, base, nullptr, id, mount_point, size, block_size, numa);
  return 0;
}

FS3_EXPORT void hf3fs_iovunlink(hf3fs_iov* iov) {
  auto* mapping = iov == nullptr ? nullptr : static_cast<Mapping*>(iov->iovh);
  if (mapping == nullptr || !mapping->own() || mapping->shm_path.empty()) return;
  unlink(mapping->shm_path.c_str());
  mapping->shm_path.clear();
}

// Of wrapped memory there is nothing of ours to destroy; some clients do it all the same.
FS3_EXPORT void hf3fs_iovdestroy(hf3fs_iov* iov) {
  auto* mapping = iov == nullptr ? nullptr : static_cast<Mapping*>(iov->iovh);
  if (mapping == nullptr) return;
  if (mapping->own()) {
    remove_name(mapping->iovs, mapping->link);
    hf3fs_iovunlink(iov);
  }
  munmap(iov->base, iov->size);
  delete mapping;
  std::memset(iov, 0, sizeof *iov);
}

FS3_EXPORT size_t hf3fs_ior_size(int entries) {
  return entries <= 0 ? 0 : ring_bytes(static_cast<uint32_t>(entries));
}

FS3_EXPORT int hf3fs_iorcreate(hf3fs_ior* ior, const char* mount_point, int entries, bool for_read,
                               int io_depth, int numa) {
  return create_ring(ior, mount_point, entries, for_read, io_depth, 0, 0, numa, 0);
}

FS3_EXPORT int hf3fs_iorcreate2(hf3fs_ior* ior, const char* mount_point, int entries, bool for_read,
                                int io_depth, int priority, int numa) {
  return create_ring(ior, mount_point, entries, for_read, io_depth, priority, 0, numa, 0);
}

FS3_EXPORT int hf3fs_iorcreate3(hf3fs_ior* ior, const char* mount_point, int entries, bool for_read,
                                int io_depth, int priority, int timeout, int numa) {
  return create_ring(ior, mount_point, entries, for_read, io_depth, priority, timeout, numa, 0);
}

FS3_EXPORT int hf3fs_iorcreate4(hf3fs_ior* ior, const char* mount_point, int entries, bool for_read,
                                int io_depth, int timeout, int numa, uint64_t flags) {
  return create_ring(ior, mount_point, entries, for_read, io_depth, 0, timeout, numa, flags);
}

FS3_EXPORT void hf3fs_iordestroy(hf3fs_ior* ior) {
  RingClient* ring = ring_of(ior);
  if (ring == nullptr) return;
  delete ring;
  std::memset(ior, 0, sizeof *ior);
}

FS3_EXPORT int hf3fs_reg_fd(int fd, uint64_t) {
  int held = 0;
  int error = descriptors().add(fd, &held);
  return error != 0 ? error : -held;
}

FS3_EXPORT void hf3fs_dereg_fd(int fd) { descriptors().remove(fd); }

FS3_EXPORT int hf3fs_io_entries(const hf3fs_ior* ior) {
  RingClient* ring = ring_of(ior);
  return ring == nullptr ? 0 : static_cast<int>(ring->entries());
}

FS3_EXPORT int hf3fs_prep_io(const hf3fs_ior* ior, const hf3fs_iov* iov, bool read, void* ptr,
                             int fd, size_t off, uint64_t len, const void* userdata) {
  RingClient* ring = ring_of(ior);
  if (ring == nullptr || iov == nullptr || ptr == nullptr || len == 0 || read != ior->for_read) {
    return -EINVAL;
  }
  auto base = reinterpret_cast<uintptr_t>(iov->base), at = reinterpret_cast<uintptr_t>(ptr);
  if (at < base || at - base > iov->size || len > iov->size - (at - base)) return -EINVAL;
  FileReference file{};
  if (!descriptors().find(fd, &file)) return -EBADF;
  uint32_t mode = file.flags & O_ACCMODE;
  if (mode == (read ? O_WRONLY : O_RDONLY)) return -EACCES;
  Request request{};
  std::memcpy(request.iov, iov->id, sizeof request.iov);
  request.iov_offset = at - base;
  request.length = len;
  request.file = file.file;
  request.key = file.key;
  request.file_offset = off;
  return ring->prepare(request, reinterpret_cast<uint64_t>(userdata));
}

FS3_EXPORT int hf3fs_submit_ios(const hf3fs_ior* ior) {
  RingClient* ring = ring_of(ior);
  return ring == nullptr ? -EINVAL : ring->submit();
}

FS3_EXPORT int hf3fs_wait_for_ios(const hf3fs_ior* ior, hf3fs_cqe* cqes, int cqec, int min_results,
                                  const timespec* abs_timeout) {
  RingClient* ring = ring_of(ior);
  if (ring == nullptr || cqec < 0 || (cqes == nullptr && cqec > 0)) return -EINVAL;
  return ring->wait(cqes, cqec, min_results, abs_timeout);
}

FS3_EXPORT int hf3fs_hardlink(const char* target, const char* link_name) {
  if (target == nullptr || link_name == nullptr) return EINVAL;
  std::string path(link_name);
  size_t slash = path.rfind('/');
  std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  HardLink link{};
  if (name.empty() || name.size() > sizeof link.name) return name.empty() ? EINVAL : ENAMETOOLONG;
  struct stat info{};
  if (stat(parent.c_str(), &info) != 0) return errno;
  link.parent = info.st_ino;
  std::memcpy(link.name, name.data(), name.size());
  int fd = open(target, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return errno;
  int error = ioctl(fd, kIoctlHardLink, &link) == 0 ? 0 : errno;
  close(fd);
  return error;
}

FS3_EXPORT int hf3fs_punchhole(int fd, int n, const size_t* start, const size_t* end,
                               size_t flags) {
  if (n < 0 || n > kHolesMax || (n > 0 && (start == nullptr || end == nullptr))) return EINVAL;
  auto holes = std::make_unique<PunchHoles>();
  holes->count = n;
  holes->flags = flags;
  for (int i = 0; i < n; ++i) {
    holes->start[i] = start[i];
    holes->end[i] = end[i];
  }
  return ioctl(fd, kIoctlPunchHole, holes.get()) == 0 ? 0 : errno;
}

FS3_EXPORT int fs3_ior_event_fd(const hf3fs_ior* ior) {
  RingClient* ring = ring_of(ior);
  return ring == nullptr ? -EINVAL : ring->event_fd();
}
