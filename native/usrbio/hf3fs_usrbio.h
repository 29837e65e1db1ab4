/* USRBIO: reads and writes of a mounted file system through rings of shared memory, without the
 * kernel in between. The ABI of 3FS.
 *
 *   struct hf3fs_iov iov;                     memory that the mount reads into and writes from
 *   struct hf3fs_ior ior;                     a ring: for reads, or for writes
 *   hf3fs_iovcreate(&iov, "/mnt/fs3", 64 << 20, 0, -1);
 *   hf3fs_iorcreate4(&ior, "/mnt/fs3", 64, true, 0, 0, -1, 0);
 *   int fd = open("/mnt/fs3/data", O_RDONLY);
 *   hf3fs_reg_fd(fd, 0);
 *   hf3fs_prep_io(&ior, &iov, true, iov.base, fd, 0, 1 << 20, NULL);      up to 64 of these
 *   hf3fs_submit_ios(&ior);
 *   struct hf3fs_cqe cqe;
 *   hf3fs_wait_for_ios(&ior, &cqe, 1, 1, NULL);      cqe.result: bytes, or -errno
 *
 * A complete program: fs3/usrbio/README.md. Unless it says otherwise a function returns 0 or a
 * negative errno.
 *
 * Threads: everything may be called from any thread; several threads may prepare, submit and wait
 * on one ring. After fork() both processes may use rings and memory; only the one that made them
 * unregisters them when it destroys them.
 */
#ifndef HF3FS_USRBIO_H
#define HF3FS_USRBIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct timespec;

#define HF3FS_SUPER_MAGIC 0x8f3f5fff

#define HF3FS_IOR_ALLOW_READ_UNCOMMITTED 1 /* no effect: reads do not wait for writes under way */
#define HF3FS_IOR_FORBID_READ_HOLES 2      /* a read that meets a hole ends with -ENODATA */

typedef void* hf3fs_iov_handle;
typedef void* hf3fs_ior_handle;

struct hf3fs_iov {
  uint8_t* base;
  hf3fs_iov_handle iovh;
  uint8_t id[16];
  char mount_point[256];
  size_t size;
  size_t block_size;
  int numa;
};

struct hf3fs_ior {
  struct hf3fs_iov iov;
  hf3fs_ior_handle iorh;
  char mount_point[256];
  bool for_read;
  int io_depth;
  int priority;
  int timeout;
  uint64_t flags;
};

struct hf3fs_cqe {
  int32_t index; /* what hf3fs_prep_io returned */
  int32_t reserved;
  int64_t result; /* bytes, or a negative errno */
  const void* userdata;
};

/* Whether fd is a file or directory of such a mount. */
bool hf3fs_is_hf3fs(int fd);
/* The mount that `path`, which must exist, lies in. Returns the length of its name with the NUL,
 * and -1 when there is none; when `size` is smaller nothing is written. */
int hf3fs_extract_mount_point(char* hf3fs_mount_point, int size, const char* path);

/* Memory for I/O: allocated at once, page aligned. block_size has no effect; numa: preferred node,
 * -1 for none. */
int hf3fs_iovcreate(struct hf3fs_iov* iov, const char* hf3fs_mount_point, size_t size,
                    size_t block_size, int numa);
/* Memory that another process of the same user registered; size 0: all of it. */
int hf3fs_iovopen(struct hf3fs_iov* iov, const uint8_t id[16], const char* hf3fs_mount_point,
                  size_t size, size_t block_size, int numa);
/* Memory that the caller has registered itself, by a symlink 3fs-virt/iovs/UUID -> /dev/shm/NAME,
 * and unregisters itself. */
int hf3fs_iovwrap(struct hf3fs_iov* iov, void* iov_base, const uint8_t id[16],
                  const char* hf3fs_mount_point, size_t size, size_t block_size, int numa);
/* Takes the name of the memory away: nobody can hf3fs_iovopen() it any more. */
void hf3fs_iovunlink(struct hf3fs_iov* iov);
void hf3fs_iovdestroy(struct hf3fs_iov* iov);

/* The bytes of shared memory that a ring takes. */
size_t hf3fs_ior_size(int entries);
/* A ring for `entries` I/Os under way. io_depth: at most `entries`; it and timeout have no effect,
 * every I/O is started at once. priority: < 0 high, 0 normal, > 0 low: how many I/Os of the ring
 * are under way while those of higher ones are. flags: HF3FS_IOR_*. */
int hf3fs_iorcreate(struct hf3fs_ior* ior, const char* hf3fs_mount_point, int entries,
                    bool for_read, int io_depth, int numa);
int hf3fs_iorcreate2(struct hf3fs_ior* ior, const char* hf3fs_mount_point, int entries,
                     bool for_read, int io_depth, int priority, int numa);
int hf3fs_iorcreate3(struct hf3fs_ior* ior, const char* hf3fs_mount_point, int entries,
                     bool for_read, int io_depth, int priority, int timeout, int numa);
int hf3fs_iorcreate4(struct hf3fs_ior* ior, const char* hf3fs_mount_point, int entries,
                     bool for_read, int io_depth, int timeout, int numa, uint64_t flags);
/* Returns when no I/O of the ring is under way any more. */
void hf3fs_iordestroy(struct hf3fs_ior* ior);

/* Makes an open file known for I/O, with the rights of its open. Returns a handle, 0 or less, to be
 * used like the descriptor; or a positive errno: EBADF when it is no file of a mount, EINVAL when
 * it is registered. It stays open until hf3fs_dereg_fd(). */
int hf3fs_reg_fd(int fd, uint64_t flags);
void hf3fs_dereg_fd(int fd);

int hf3fs_io_entries(const struct hf3fs_ior* ior);
/* Adds an I/O between [ptr, ptr + len) of the memory and the file at `off`. No alignment is asked
 * for. Returns the index of its slot; -EINVAL: nothing to do, another direction than the ring's, or
 * outside the memory; -EBADF: the file is not registered; -EACCES: it was not opened for that;
 * -EAGAIN: all slots are in use. It may be started before hf3fs_submit_ios(). */
int hf3fs_prep_io(const struct hf3fs_ior* ior, const struct hf3fs_iov* iov, bool read, void* ptr,
                  int fd, size_t off, uint64_t len, const void* userdata);
int hf3fs_submit_ios(const struct hf3fs_ior* ior);
/* Waits until min_results I/Os have ended or CLOCK_REALTIME has reached abs_timeout (NULL: without
 * end), and takes up to cqec results, in the order of submission as far as they are there. Returns
 * their number, which is less than min_results when the time is over; -ENOTCONN: the mount does not
 * serve the ring any more. A read is short only at the end of the file; a write is whole or an
 * error, and on all its replicas. */
int hf3fs_wait_for_ios(const struct hf3fs_ior* ior, struct hf3fs_cqe* cqes, int cqec,
                       int min_results, const struct timespec* abs_timeout);

/* Link `target` as `link_name`, also where they are in different bind mounts of one file system. 0
 * or a positive errno. */
int hf3fs_hardlink(const char* target, const char* link_name);
/* Takes the bytes [start[i], end[i]) out of the file. 0 or a positive errno. */
int hf3fs_punchhole(int fd, int n, const size_t* start, const size_t* end, size_t flags);

/* Not of 3FS: a descriptor that can be polled for reading; it is readable when I/Os may have ended
 * since the last hf3fs_wait_for_ios(). Belongs to the ring. */
int fs3_ior_event_fd(const struct hf3fs_ior* ior);

#ifdef __cplusplus
}
#endif

#endif
