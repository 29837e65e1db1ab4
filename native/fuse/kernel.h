// The kernel's FUSE protocol, as far as the system header does not have it: FUSE over io_uring
// (protocol 7.42, Linux 6.14) and flags that came after 7.38, plus the sizes of every operation's
// fixed header. <linux/fuse.h> is the canonical text of everything else.
//
// A request travels in one of two shapes:
//   classic, read(2) from /dev/fuse:  fuse_in_header | operation header | payload (names, data)
//   io_uring, one buffer pair:        UringHeader{in header, operation header, ent} + payload
// and the reply likewise, except that an io_uring reply has no operation header: everything after
// fuse_out_header is payload.
#pragma once

#include <linux/fuse.h>

#include <cstddef>
#include <cstdint>

namespace fs3::fuse {

constexpr uint32_t kMinorOffered = 42;  // what we speak; the kernel takes the lower of both

constexpr uint64_t kInitDirectIoAllowMmap = 1ull << 36;
constexpr uint64_t kInitHasResend = 1ull << 39;  // Linux 6.9
constexpr uint64_t kInitOverIoUring = 1ull << 41;

constexpr int kNotifyResend = 7;

// Since 7.45 (Linux 6.18): as FUSE_COPY_FILE_RANGE, whose reply has 32 bits, with CopyRangeOut.
constexpr uint32_t kOpCopyFileRange64 = 53;
struct CopyRangeOut {
  uint64_t bytes_copied;
};

constexpr uint32_t kOpTmpfile = 51;
constexpr uint32_t kOpStatx = 52;

constexpr uint32_t kMaxPages = 256;
constexpr uint32_t kPageBytes = 4096;
constexpr uint32_t kMaxTransfer = kMaxPages * kPageBytes;  // largest read, write and reply: 1 MiB
constexpr size_t kNameMax = 255;
constexpr size_t kSymlinkMax = 4095;
constexpr size_t kXattrNameMax = 255;
constexpr size_t kXattrSizeMax = 65'536;  // of a value, and of a list of names

// STATX (protocol 7.39, Linux 6.6).
struct StatxIn {
  uint32_t getattr_flags;
  uint32_t reserved;
  uint64_t fh;
  uint32_t sx_flags;
  uint32_t sx_mask;
};
static_assert(sizeof(StatxIn) == 24);

struct StatxTime {
  int64_t seconds;
  uint32_t nanoseconds;
  int32_t reserved;
};

struct Statx {
  uint32_t mask;
  uint32_t blksize;
  uint64_t attributes;
  uint32_t nlink;
  uint32_t uid;
  uint32_t gid;
  uint16_t mode;
  uint16_t padding;
  uint64_t ino;
  uint64_t size;
  uint64_t blocks;
  uint64_t attributes_mask;
  StatxTime atime, btime, ctime, mtime;
  uint32_t rdev_major, rdev_minor;
  uint32_t dev_major, dev_minor;
  uint64_t spare[14];
};
static_assert(sizeof(Statx) == 256);

struct StatxOut {
  uint64_t attr_valid;
  uint32_t attr_valid_nsec;
  uint32_t flags;
  uint64_t spare[2];
  Statx stat;
};
static_assert(sizeof(StatxOut) == 288);

// The entry part of an io_uring request or reply.
struct UringEntInOut {
  uint64_t flags;
  uint64_t commit_id;   // to be given back with the reply
  uint32_t payload_sz;  // bytes used in the payload buffer
  uint32_t padding;
  uint64_t reserved;
};

// First buffer of an io_uring entry; the second one is the payload.
struct UringHeader {
  std::byte in_out[128];  // fuse_in_header, then fuse_out_header
  std::byte op_in[128];   // the operation's fixed header
  UringEntInOut ent;
};
static_assert(sizeof(UringHeader) == 288);

enum UringCommand : uint32_t { kUringRegister = 1, kUringCommitAndFetch = 2 };

// In the 80 bytes of command space of a 128 byte submission entry.
struct UringCommandRequest {
  uint64_t flags;
  uint64_t commit_id;
  uint16_t qid;  // one queue per possible CPU
  uint8_t padding[6];
};
static_assert(sizeof(UringCommandRequest) == 24);

constexpr size_t kUnknownOperation = SIZE_MAX;

// Bytes of the fixed header of an operation; kUnknownOperation for what we do not speak. INIT is
// not in the table: its size grew with the protocol.
constexpr size_t operation_header_size(uint32_t opcode) {
  switch (opcode) {
    case FUSE_LOOKUP:
    case FUSE_READLINK:
    case FUSE_SYMLINK:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_STATFS:
    case FUSE_DESTROY:
    case FUSE_REMOVEXATTR:
      return 0;
    case FUSE_FORGET:
      return sizeof(fuse_forget_in);
    case FUSE_BATCH_FORGET:
      return sizeof(fuse_batch_forget_in);
    case FUSE_GETATTR:
      return sizeof(fuse_getattr_in);
    case FUSE_SETATTR:
      return sizeof(fuse_setattr_in);
    case FUSE_MKNOD:
      return sizeof(fuse_mknod_in);
    case FUSE_MKDIR:
      return sizeof(fuse_mkdir_in);
    case FUSE_RENAME:
      return sizeof(fuse_rename_in);
    case FUSE_RENAME2:
      return sizeof(fuse_rename2_in);
    case FUSE_LINK:
      return sizeof(fuse_link_in);
    case FUSE_OPEN:
    case FUSE_OPENDIR:
      return sizeof(fuse_open_in);
    case FUSE_CREATE:
    case kOpTmpfile:
      return sizeof(fuse_create_in);
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      return sizeof(fuse_read_in);
    case FUSE_WRITE:
      return sizeof(fuse_write_in);
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
      return sizeof(fuse_release_in);
    case FUSE_FSYNC:
    case FUSE_FSYNCDIR:
      return sizeof(fuse_fsync_in);
    case FUSE_FLUSH:
      return sizeof(fuse_flush_in);
    case FUSE_ACCESS:
      return sizeof(fuse_access_in);
    case FUSE_INTERRUPT:
      return sizeof(fuse_interrupt_in);
    case FUSE_FALLOCATE:
      return sizeof(fuse_fallocate_in);
    case FUSE_LSEEK:
      return sizeof(fuse_lseek_in);
    case FUSE_COPY_FILE_RANGE:
    case kOpCopyFileRange64:
      return sizeof(fuse_copy_file_range_in);
    case FUSE_SYNCFS:
      return sizeof(fuse_syncfs_in);
    case FUSE_SETXATTR:
      return sizeof(fuse_setxattr_in);  // the long form: SETXATTR_EXT is always agreed
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
      return sizeof(fuse_getxattr_in);
    case FUSE_IOCTL:
      return sizeof(fuse_ioctl_in);
    case kOpStatx:
      return sizeof(StatxIn);
    default:
      return kUnknownOperation;
  }
}

}  // namespace fs3::fuse
