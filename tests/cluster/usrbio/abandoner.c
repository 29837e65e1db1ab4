/* A program that does everything wrong: abandoner MOUNT FILE. Submits more than it ever waits for, cuts memory that is being filled,
 * overwrites its rings; ends without a word. */
#include <fcntl.h>
#include <hf3fs_usrbio.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { kEntries = 64, kBytes = 64 << 20 };

static int shared_file(const struct hf3fs_iov *iov, const char *mount) {
  char link[600], target[600];
  const uint8_t *id = iov->id;
  snprintf(link, sizeof link, "%s/3fs-virt/iovs/%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", mount, id[0],
           id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]);
  ssize_t length = readlink(link, target, sizeof target - 1);
  if (length < 0) return -1;
  target[length] = 0;
  return open(target, O_RDWR);
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  struct hf3fs_iov iov;
  struct hf3fs_ior reads, writes;
  int error = hf3fs_iovcreate(&iov, argv[1], kBytes, 0, -1);
  if (error == 0) error = hf3fs_iorcreate4(&reads, argv[1], kEntries, true, 0, 0, -1, 0);
  if (error == 0) error = hf3fs_iorcreate4(&writes, argv[1], kEntries, false, 0, 0, -1, 0);
  int fd = open(argv[2], O_RDWR | O_CREAT, 0600);
  if (error != 0 || fd < 0 || hf3fs_reg_fd(fd, 0) > 0) return 3;
  int file = shared_file(&iov, argv[1]);
  if (file < 0) return 4;
  for (int i = 0; i < kEntries; ++i) {
    size_t place = (size_t)i << 20;
    if (hf3fs_prep_io(&writes, &iov, false, iov.base + place, fd, place, 1 << 20, NULL) < 0) return 5;
    if (hf3fs_prep_io(&reads, &iov, true, iov.base + place, fd, place, 1 << 20, NULL) < 0) return 5;
  }
  if (hf3fs_submit_ios(&writes) != 0 || hf3fs_submit_ios(&reads) != 0) return 6;
  struct hf3fs_cqe cqe;
  if (hf3fs_wait_for_ios(&writes, &cqe, 1, 1, NULL) != 1) return 7;
  /* the memory goes while it is used */
  if (ftruncate(file, 4096) != 0) return 8;
  /* rings full of nonsense, and the bell all the time */
  for (unsigned round = 0; round < 200; ++round) {
    memset((char *)reads.iov.base + 4096, (int)(round * 37), reads.iov.size - 4096);
    memset((char *)writes.iov.base + 4096, 2, 64); /* all slots are ready, says the program */
    memset((char *)reads.iov.base, round % 2 ? 0xff : 0, 4096);
    hf3fs_submit_ios(&reads);
    hf3fs_submit_ios(&writes);
    usleep(1000);
  }
  _exit(0);
}
