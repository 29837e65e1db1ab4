/* Writes and reads one file through rings, compares every byte, until it is told to stop: worker MOUNT FILE SEED. A line per round on
 * standard output; ends when standard input does. */
#include <errno.h>
#include <fcntl.h>
#include <hf3fs_usrbio.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { kDepth = 16, kBlock = 96 << 10, kBlocks = 128 };

static void fail(const char *what, long long got) {
  fprintf(stderr, "%s: %lld\n", what, got);
  exit(1);
}

static void fill(uint8_t *block, unsigned index, unsigned version) {
  unsigned state = index * 2654435761u + version * 40503u + 1;
  for (size_t i = 0; i < kBlock; ++i) {
    state = state * 1664525u + 1013904223u;
    block[i] = (uint8_t)(state >> 24);
  }
}

/* Runs one I/O for each of `count` blocks. */
static void run(struct hf3fs_ior *ior, struct hf3fs_iov *iov, int fd, const unsigned *blocks, int count) {
  struct hf3fs_cqe cqes[kDepth];
  for (int i = 0; i < count; ++i) {
    int slot = hf3fs_prep_io(ior, iov, ior->for_read, iov->base + (size_t)i * kBlock, fd, (size_t)blocks[i] * kBlock, kBlock,
                             (void *)(intptr_t)i);
    if (slot < 0) fail("prep", slot);
  }
  int error = hf3fs_submit_ios(ior);
  if (error != 0) fail("submit", error);
  for (int got = 0; got < count;) {
    int more = hf3fs_wait_for_ios(ior, cqes + got, kDepth - got, count - got, NULL);
    if (more <= 0) fail("wait", more);
    got += more;
  }
  for (int i = 0; i < count; ++i) {
    if (cqes[i].userdata != (void *)(intptr_t)i) fail("order", i);
    if (cqes[i].result != kBlock) fail("result", cqes[i].result);
  }
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  struct hf3fs_iov iov;
  struct hf3fs_ior reads, writes;
  int error = hf3fs_iovcreate(&iov, argv[1], (size_t)kDepth * kBlock, 0, -1);
  if (error == 0) error = hf3fs_iorcreate4(&reads, argv[1], kDepth, true, 0, 0, -1, 0);
  if (error == 0) error = hf3fs_iorcreate4(&writes, argv[1], kDepth, false, 0, 0, -1, 0);
  if (error != 0) fail("create", error);
  int fd = open(argv[2], O_RDWR | O_CREAT, 0600);
  if (fd < 0 || hf3fs_reg_fd(fd, 0) > 0) fail("open", errno);
  static unsigned versions[kBlocks];
  static uint8_t expected[kBlock];
  unsigned chosen[kDepth];
  unsigned state = (unsigned)atoi(argv[3]);
  for (int round = 0;; ++round) {
    struct pollfd end = {.fd = 0, .events = POLLIN};
    if (poll(&end, 1, 0) != 0) break;
    unsigned first = (state = state * 1664525u + 1013904223u) >> 8;
    int count = 1 + (int)(first % kDepth);
    for (int i = 0; i < count; ++i) {
      unsigned block = (first + (unsigned)i) % kBlocks;
      chosen[i] = block;
      fill(iov.base + (size_t)i * kBlock, block, ++versions[block]);
    }
    run(&writes, &iov, fd, chosen, count);
    memset(iov.base, 0, (size_t)count * kBlock);
    run(&reads, &iov, fd, chosen, count);
    for (int i = 0; i < count; ++i) {
      fill(expected, chosen[i], versions[chosen[i]]);
      if (memcmp(iov.base + (size_t)i * kBlock, expected, kBlock) != 0) fail("another content, block", chosen[i]);
    }
    printf("%d\n", round);
    fflush(stdout);
  }
  hf3fs_dereg_fd(fd);
  close(fd);
  hf3fs_iordestroy(&reads);
  hf3fs_iordestroy(&writes);
  hf3fs_iovdestroy(&iov);
  return 0;
}
