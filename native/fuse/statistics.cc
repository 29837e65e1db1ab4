#include "fuse/statistics.h"

#include "fuse/kernel.h"

namespace fs3::fuse {

std::string_view operation_name(uint32_t opcode) {
  switch (opcode) {
    case FUSE_LOOKUP:
      return "lookup";
    case FUSE_FORGET:
      return "forget";
    case FUSE_GETATTR:
      return "getattr";
    case FUSE_SETATTR:
      return "setattr";
    case FUSE_READLINK:
      return "readlink";
    case FUSE_SYMLINK:
      return "symlink";
    case FUSE_MKNOD:
      return "mknod";
    case FUSE_MKDIR:
      return "mkdir";
    case FUSE_UNLINK:
      return "unlink";
    case FUSE_RMDIR:
      return "rmdir";
    case FUSE_RENAME:
      return "rename";
    case FUSE_LINK:
      return "link";
    case FUSE_OPEN:
      return "open";
    case FUSE_READ:
      return "read";
    case FUSE_WRITE:
      return "write";
    case FUSE_STATFS:
      return "statfs";
    case FUSE_RELEASE:
      return "release";
    case FUSE_FSYNC:
      return "fsync";
    case FUSE_FLUSH:
      return "flush";
    case FUSE_INIT:
      return "init";
    case FUSE_OPENDIR:
      return "opendir";
    case FUSE_READDIR:
      return "readdir";
    case FUSE_RELEASEDIR:
      return "releasedir";
    case FUSE_FSYNCDIR:
      return "fsyncdir";
    case FUSE_ACCESS:
      return "access";
    case FUSE_CREATE:
      return "create";
    case FUSE_INTERRUPT:
      return "interrupt";
    case FUSE_DESTROY:
      return "destroy";
    case FUSE_BATCH_FORGET:
      return "batch_forget";
    case FUSE_READDIRPLUS:
      return "readdirplus";
    case FUSE_FALLOCATE:
      return "fallocate";
    case FUSE_LSEEK:
      return "lseek";
    case FUSE_COPY_FILE_RANGE:
    case kOpCopyFileRange64:
      return "copy_file_range";
    case FUSE_SYNCFS:
      return "syncfs";
    case FUSE_RENAME2:
      return "rename2";
    case FUSE_SETXATTR:
      return "setxattr";
    case FUSE_GETXATTR:
      return "getxattr";
    case FUSE_LISTXATTR:
      return "listxattr";
    case FUSE_REMOVEXATTR:
      return "removexattr";
    case FUSE_IOCTL:
      return "ioctl";
    case kOpTmpfile:
      return "tmpfile";
    case kOpStatx:
      return "statx";
    default:
      return "other";
  }
}

void OperationStatistics::record(uint32_t opcode, int64_t latency_ns, bool error) {
  // Operations without a name share cell 0, which no opcode uses.
  Cell& cell = cells_[opcode < kOperations && operation_name(opcode) != "other" ? opcode : 0];
  cell.count.fetch_add(1, std::memory_order_relaxed);
  if (error) cell.errors.fetch_add(1, std::memory_order_relaxed);
  cell.total_ns.fetch_add(latency_ns > 0 ? static_cast<uint64_t>(latency_ns) : 0,
                          std::memory_order_relaxed);
  cell.buckets[latency_bucket(latency_ns)].fetch_add(1, std::memory_order_relaxed);
}

std::vector<OperationSample> OperationStatistics::sample() const {
  std::vector<OperationSample> samples;
  for (size_t opcode = 0; opcode < kOperations; ++opcode) {
    const Cell& cell = cells_[opcode];
    OperationSample one;
    one.count = cell.count.load(std::memory_order_relaxed);
    if (one.count == 0) continue;
    one.name = operation_name(static_cast<uint32_t>(opcode));
    one.errors = cell.errors.load(std::memory_order_relaxed);
    one.total_ns = cell.total_ns.load(std::memory_order_relaxed);
    for (size_t i = 0; i < kLatencyBuckets; ++i) {
      one.buckets[i] = cell.buckets[i].load(std::memory_order_relaxed);
    }
    samples.push_back(one);
  }
  return samples;
}

}  // namespace fs3::fuse
