/* Writes 10,000 bytes as that user: writer MOUNT FILE UID. */
#include <fcntl.h>
#include <hf3fs_usrbio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv) {
  enum { kBytes = 10000 };
  struct hf3fs_iov iov;
  struct hf3fs_ior ior;
  struct hf3fs_cqe cqe;
  if (argc != 4) return 2;
  /* The directories above may be root's alone, and are open; /proc/self stays readable. */
  if (setuid((uid_t)atoi(argv[3])) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0) return 9;
  if (hf3fs_iovcreate(&iov, argv[1], kBytes, 0, -1) != 0) return 3;
  if (hf3fs_iorcreate4(&ior, argv[1], 1, false, 0, 0, -1, 0) != 0) return 4;
  int fd = open(argv[2], O_WRONLY);
  if (fd < 0 || hf3fs_reg_fd(fd, 0) > 0) return 5;
  memset(iov.base, 'x', kBytes);
  if (hf3fs_prep_io(&ior, &iov, false, iov.base, fd, 0, kBytes, NULL) < 0) return 6;
  hf3fs_submit_ios(&ior);
  if (hf3fs_wait_for_ios(&ior, &cqe, 1, 1, NULL) != 1) return 7;
  hf3fs_dereg_fd(fd);
  hf3fs_iordestroy(&ior);
  hf3fs_iovdestroy(&iov);
  return cqe.result == kBytes ? 0 : 8;
}
