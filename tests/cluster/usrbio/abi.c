/* Every function of the ABI of USRBIO and its conventions, on a mount: abi MOUNT DIRECTORY. Ends with 1 at the first surprise. */
#include <errno.h>
#include <fcntl.h>
#include <hf3fs_usrbio.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPECT(condition)                                                                            \
  do {                                                                                               \
    if (!(condition)) {                                                                              \
      fprintf(stderr, "%s:%d: %s (errno %d: %s)\n", __FILE__, __LINE__, #condition, errno, strerror(errno)); \
      exit(1);                                                                                       \
    }                                                                                                \
  } while (0)

_Static_assert(sizeof(struct hf3fs_iov) == 312, "iov");
_Static_assert(sizeof(struct hf3fs_ior) == 600, "ior");
_Static_assert(sizeof(struct hf3fs_cqe) == 24, "cqe");
_Static_assert(offsetof(struct hf3fs_iov, id) == 16 && offsetof(struct hf3fs_iov, mount_point) == 32, "iov");
_Static_assert(offsetof(struct hf3fs_iov, size) == 288 && offsetof(struct hf3fs_iov, numa) == 304, "iov");
_Static_assert(offsetof(struct hf3fs_ior, iorh) == 312 && offsetof(struct hf3fs_ior, for_read) == 576, "ior");
_Static_assert(offsetof(struct hf3fs_ior, timeout) == 588 && offsetof(struct hf3fs_ior, flags) == 592, "ior");
_Static_assert(offsetof(struct hf3fs_cqe, result) == 8 && offsetof(struct hf3fs_cqe, userdata) == 16, "cqe");

enum { kEntries = 16, kIov = 8 << 20, kBlock = 64 << 10 };

static const char *mount_point;
static char path[8192];
static char in_directory[4096];

static const char *named(const char *name) {
  snprintf(path, sizeof path, "%s/%s", in_directory, name);
  return path;
}

static struct timespec in_seconds(int seconds) {
  struct timespec at;
  clock_gettime(CLOCK_REALTIME, &at);
  at.tv_sec += seconds;
  return at;
}

/* One I/O from beginning to end: its result. */
static int64_t one(struct hf3fs_ior *ior, struct hf3fs_iov *iov, int fd, size_t at, size_t offset, size_t length) {
  struct hf3fs_cqe cqe = {0};
  int index = hf3fs_prep_io(ior, iov, ior->for_read, iov->base + at, fd, offset, length, &cqe);
  EXPECT(index >= 0);
  EXPECT(hf3fs_submit_ios(ior) == 0);
  EXPECT(hf3fs_submit_ios(ior) == 0); /* idempotent */
  EXPECT(hf3fs_wait_for_ios(ior, &cqe, 1, 1, NULL) == 1);
  EXPECT(cqe.index == index && cqe.userdata == &cqe);
  return cqe.result;
}

static void mount_points(void) {
  char buffer[256];
  int length = (int)strlen(mount_point) + 1;
  memset(buffer, 'x', sizeof buffer);
  EXPECT(hf3fs_extract_mount_point(buffer, length - 1, in_directory) == length && buffer[0] == 'x');
  EXPECT(hf3fs_extract_mount_point(buffer, length, in_directory) == length && strcmp(buffer, mount_point) == 0);
  EXPECT(hf3fs_extract_mount_point(buffer, sizeof buffer, "/") == -1);
  EXPECT(hf3fs_extract_mount_point(buffer, sizeof buffer, named("missing")) == -1);
  int fd = open(in_directory, O_RDONLY | O_DIRECTORY);
  EXPECT(fd >= 0 && hf3fs_is_hf3fs(fd));
  close(fd);
  fd = open("/tmp", O_RDONLY | O_DIRECTORY);
  EXPECT(fd >= 0 && !hf3fs_is_hf3fs(fd) && !hf3fs_is_hf3fs(-1));
  close(fd);
}

static void memory(void) {
  struct hf3fs_iov iov, other;
  EXPECT(hf3fs_iovcreate(&iov, "/nowhere", kIov, 0, -1) == -ENOENT);
  EXPECT(hf3fs_iovcreate(&iov, mount_point, 0, 0, -1) == -EINVAL);
  EXPECT(hf3fs_iovcreate(NULL, mount_point, kIov, 0, -1) == -EINVAL);
  EXPECT(hf3fs_iovcreate(&iov, mount_point, kIov, 1 << 20, 0) == 0);
  EXPECT(iov.size == kIov && iov.block_size == 1 << 20 && strcmp(iov.mount_point, mount_point) == 0);
  EXPECT(((uintptr_t)iov.base & 4095) == 0);
  memset(iov.base, 7, kIov);
  EXPECT(hf3fs_iovopen(&other, iov.id, mount_point, kIov, 1 << 20, -1) == 0);
  EXPECT(other.base != iov.base && other.base[kIov - 1] == 7);
  hf3fs_iovdestroy(&other);
  EXPECT(hf3fs_iovopen(&other, iov.id, mount_point, 2 * kIov, 1 << 20, -1) == -EINVAL);
  hf3fs_iovunlink(&iov);
  hf3fs_iovunlink(&iov);
  EXPECT(hf3fs_iovopen(&other, iov.id, mount_point, kIov, 1 << 20, -1) == -ENOENT);
  iov.base[0] = 1; /* the memory stays */
  EXPECT(hf3fs_iovwrap(&other, iov.base, iov.id, mount_point, kIov, 0, -1) == 0);
  hf3fs_iovdestroy(&other); /* an error of the caller, and harmless */
  iov.base[0] = 2;
  hf3fs_iovdestroy(&iov);
  hf3fs_iovdestroy(&iov);
}

static void rings(void) {
  struct hf3fs_ior ior;
  EXPECT(hf3fs_ior_size(kEntries) > 0 && hf3fs_ior_size(0) == 0);
  EXPECT(hf3fs_iorcreate(&ior, mount_point, 0, true, 0, -1) == -EINVAL);
  EXPECT(hf3fs_iorcreate(&ior, mount_point, 4, true, 5, -1) == -EINVAL);
  EXPECT(hf3fs_iorcreate(&ior, mount_point, 4, true, 4, -1) == 0 && ior.for_read && ior.io_depth == 4);
  EXPECT(hf3fs_io_entries(&ior) == 4);
  hf3fs_iordestroy(&ior);
  EXPECT(hf3fs_iorcreate2(&ior, mount_point, 4, false, -4, -1, -1) == 0 && ior.priority == -1 && !ior.for_read);
  hf3fs_iordestroy(&ior);
  EXPECT(hf3fs_iorcreate3(&ior, mount_point, 4, true, 0, 1, 20, -1) == 0 && ior.timeout == 20);
  hf3fs_iordestroy(&ior);
  EXPECT(hf3fs_iorcreate4(&ior, mount_point, 4, true, 0, 0, -1, HF3FS_IOR_FORBID_READ_HOLES) == 0);
  EXPECT(ior.flags == HF3FS_IOR_FORBID_READ_HOLES && ior.iov.size >= hf3fs_ior_size(4));
  hf3fs_iordestroy(&ior);
  hf3fs_iordestroy(&ior);
  EXPECT(hf3fs_submit_ios(&ior) == -EINVAL && hf3fs_io_entries(&ior) == 0);
}

static void descriptors(void) {
  EXPECT(hf3fs_reg_fd(-1, 0) == EBADF);
  int fd = open("/dev/null", O_RDONLY);
  EXPECT(hf3fs_reg_fd(fd, 0) == EBADF);
  close(fd);
  fd = open(named("registered"), O_RDWR | O_CREAT, 0600);
  EXPECT(fd >= 0);
  int handle = hf3fs_reg_fd(fd, 0);
  EXPECT(handle <= 0);
  EXPECT(hf3fs_reg_fd(fd, 0) == EINVAL);
  hf3fs_dereg_fd(fd);
  hf3fs_dereg_fd(fd);
  EXPECT(hf3fs_reg_fd(fd, 0) <= 0);
  /* closed without a word, and the number used again */
  close(fd);
  int again = open(named("registered"), O_RDONLY);
  EXPECT(again == fd && hf3fs_reg_fd(again, 0) <= 0);
  close(again);
  hf3fs_dereg_fd(again);
}

static void io(void) {
  struct hf3fs_iov iov;
  struct hf3fs_ior reads, writes;
  struct hf3fs_cqe cqes[kEntries];
  EXPECT(hf3fs_iovcreate(&iov, mount_point, kIov, 0, -1) == 0);
  EXPECT(hf3fs_iorcreate4(&reads, mount_point, kEntries, true, 0, 0, -1, 0) == 0);
  EXPECT(hf3fs_iorcreate(&writes, mount_point, kEntries, false, 0, -1) == 0);
  int fd = open(named("data"), O_RDWR | O_CREAT | O_TRUNC, 0600);
  EXPECT(fd >= 0);
  uint8_t *base = iov.base;
  EXPECT(hf3fs_prep_io(&reads, &iov, true, base, fd, 0, 10, NULL) == -EBADF);
  int handle = hf3fs_reg_fd(fd, 0);
  EXPECT(handle <= 0);
  EXPECT(hf3fs_prep_io(&reads, &iov, false, base, fd, 0, 10, NULL) == -EINVAL);
  EXPECT(hf3fs_prep_io(&reads, &iov, true, base, fd, 0, 0, NULL) == -EINVAL);
  EXPECT(hf3fs_prep_io(&reads, &iov, true, NULL, fd, 0, 10, NULL) == -EINVAL);
  EXPECT(hf3fs_prep_io(&reads, &iov, true, base - 1, fd, 0, 10, NULL) == -EINVAL);
  EXPECT(hf3fs_prep_io(&reads, &iov, true, base + kIov - 9, fd, 0, 10, NULL) == -EINVAL);
  EXPECT(hf3fs_prep_io(NULL, &iov, true, base, fd, 0, 10, NULL) == -EINVAL);

  /* bytes there and back, without any alignment, by the descriptor and by the handle */
  for (int i = 0; i < kIov / 2; ++i) base[i] = (uint8_t)(i * 7 + i / 251);
  EXPECT(one(&writes, &iov, fd, 13, 5, 3000001) == 3000001);
  EXPECT(one(&reads, &iov, handle, kIov / 2, 0, 3000006) == 3000006);
  EXPECT(memcmp(base + kIov / 2 + 5, base + 13, 3000001) == 0);
  EXPECT(base[kIov / 2] == 0 && base[kIov / 2 + 4] == 0); /* nobody wrote there */
  /* short at the end, nothing beyond */
  EXPECT(one(&reads, &iov, fd, kIov / 2, 3000000, 100) == 6);
  EXPECT(one(&reads, &iov, fd, kIov / 2, 3000006, 100) == 0);
  EXPECT(one(&reads, &iov, fd, kIov / 2, 1ull << 40, 100) == 0);
  EXPECT(one(&reads, &iov, fd, kIov / 2, SIZE_MAX - 5, 100) < 0);
  struct stat info;
  EXPECT(fstat(fd, &info) == 0 && info.st_size == 3000006);
  /* the kernel sees it, also what it had in its cache */
  uint8_t byte;
  EXPECT(pread(fd, &byte, 1, 100) == 1 && byte == base[13 + 95]);
  base[0] = (uint8_t)(byte + 1);
  EXPECT(one(&writes, &iov, fd, 0, 100, 1) == 1);
  EXPECT(pread(fd, &byte, 1, 100) == 1 && byte == base[0]);
  /* and the ring sees what went through the kernel */
  EXPECT(pwrite(fd, "kernel", 6, 200) == 6);
  EXPECT(one(&reads, &iov, fd, 0, 200, 6) == 6 && memcmp(base, "kernel", 6) == 0);

  /* the rights of the open count */
  int reader = open(named("data"), O_RDONLY), writer = open(named("data"), O_WRONLY);
  EXPECT(hf3fs_reg_fd(reader, 0) <= 0 && hf3fs_reg_fd(writer, 0) <= 0);
  EXPECT(hf3fs_prep_io(&writes, &iov, false, base, reader, 0, 10, NULL) == -EACCES);
  EXPECT(hf3fs_prep_io(&reads, &iov, true, base, writer, 0, 10, NULL) == -EACCES);
  hf3fs_dereg_fd(reader);
  hf3fs_dereg_fd(writer);
  close(reader);
  close(writer);

  /* a full ring; results in the order of submission; polling; times of all kinds */
  EXPECT(hf3fs_wait_for_ios(&reads, cqes, kEntries, 0, NULL) == 0);
  for (intptr_t i = 0; i < kEntries; ++i) {
    size_t length = (size_t)(i % 3 == 0 ? 1000000 : 100);
    EXPECT(hf3fs_prep_io(&reads, &iov, true, base, fd, (size_t)i, length, (void *)i) >= 0);
  }
  EXPECT(hf3fs_prep_io(&reads, &iov, true, base, fd, 0, 10, NULL) == -EAGAIN);
  EXPECT(hf3fs_submit_ios(&reads) == 0);
  struct timespec until = in_seconds(60);
  EXPECT(hf3fs_wait_for_ios(&reads, cqes, kEntries, 1000, &until) == kEntries);
  for (intptr_t i = 0; i < kEntries; ++i) {
    EXPECT(cqes[i].userdata == (void *)i && cqes[i].result == (i % 3 == 0 ? 1000000 : 100));
  }
  struct timespec relative = {0, 1000000}, monotonic;
  clock_gettime(CLOCK_MONOTONIC, &monotonic);
  EXPECT(hf3fs_wait_for_ios(&reads, cqes, 1, 1, &relative) == 0);
  EXPECT(hf3fs_wait_for_ios(&reads, cqes, 1, 1, &monotonic) == 0);
  until = in_seconds(0);
  EXPECT(hf3fs_wait_for_ios(&reads, cqes, 1, 1, &until) == 0);
  EXPECT(hf3fs_wait_for_ios(&reads, NULL, 1, 1, NULL) == -EINVAL);

  /* forked processes use the same ring; what they end takes nothing away */
  pid_t child = fork();
  if (child == 0) {
    if (one(&reads, &iov, fd, 0, 200, 6) != 6) _exit(1);
    hf3fs_iordestroy(&reads);
    hf3fs_iovdestroy(&iov);
    _exit(0);
  }
  int status;
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
  EXPECT(one(&reads, &iov, fd, 0, 200, 6) == 6);

  /* the file is closed, its handle still works */
  close(fd);
  EXPECT(one(&reads, &iov, handle, 0, 200, 6) == 6);
  hf3fs_dereg_fd(fd);
  EXPECT(hf3fs_prep_io(&reads, &iov, true, base, handle, 0, 10, NULL) == -EBADF);

  hf3fs_iovdestroy(&iov); /* before its rings */
  hf3fs_iordestroy(&reads);
  hf3fs_iordestroy(&writes);
}

static void holes(void) {
  struct hf3fs_iov iov;
  struct hf3fs_ior zeros, strict;
  EXPECT(hf3fs_iovcreate(&iov, mount_point, kIov, 0, -1) == 0);
  EXPECT(hf3fs_iorcreate4(&zeros, mount_point, 1, true, 0, 0, -1, HF3FS_IOR_ALLOW_READ_UNCOMMITTED) == 0);
  EXPECT(hf3fs_iorcreate4(&strict, mount_point, 1, true, 0, 0, -1, HF3FS_IOR_FORBID_READ_HOLES) == 0);
  int fd = open(named("sparse"), O_RDWR | O_CREAT, 0600);
  EXPECT(ftruncate(fd, 1ll << 40) == 0 && pwrite(fd, "x", 1, 3 << 20) == 1 && fsync(fd) == 0);
  EXPECT(hf3fs_reg_fd(fd, 0) <= 0);
  memset(iov.base, 9, kIov);
  EXPECT(one(&zeros, &iov, fd, 0, 2 << 20, 3 << 20) == 3 << 20);
  for (int i = 0; i < 3 << 20; ++i) EXPECT(iov.base[i] == (i == 1 << 20 ? 'x' : 0));
  EXPECT(one(&strict, &iov, fd, 0, 3 << 20, 1) == 1 && iov.base[0] == 'x');
  EXPECT(one(&strict, &iov, fd, 0, 2 << 20, 10) == -ENODATA);
  hf3fs_dereg_fd(fd);
  close(fd);
  hf3fs_iordestroy(&zeros);
  hf3fs_iordestroy(&strict);
  hf3fs_iovdestroy(&iov);
}

static void names(void) {
  int fd = open(named("target"), O_RDWR | O_CREAT, 0600);
  EXPECT(fd >= 0);
  char link[8192];
  snprintf(link, sizeof link, "%s/linked", in_directory);
  EXPECT(hf3fs_hardlink(named("target"), link) == 0);
  struct stat info;
  EXPECT(stat(link, &info) == 0 && info.st_nlink == 2);
  EXPECT(hf3fs_hardlink(named("target"), link) == EEXIST);
  EXPECT(hf3fs_hardlink(named("missing"), link) == ENOENT);
  size_t start = 0, end = 1 << 20;
  EXPECT(hf3fs_punchhole(fd, 1, NULL, &end, 0) == EINVAL && hf3fs_punchhole(fd, 1001, &start, &end, 0) == EINVAL);
  close(fd);
}

int main(int count, char **arguments) {
  if (count != 3) return 2;
  mount_point = arguments[1];
  snprintf(in_directory, sizeof in_directory, "%s", arguments[2]);
  mount_points();
  memory();
  rings();
  descriptors();
  io();
  holes();
  names();
  puts("all as it should be");
  return 0;
}
