#include "fuse/negotiate.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

namespace fs3::fuse {
namespace {

constexpr uint32_t kMajor = 7;
constexpr uint32_t kMinorLeast = 33;  // SETXATTR_EXT: the header of SETXATTR has one size

// What we take when the kernel offers it.
//  DONT_MASK         the metadata service applies the umask
//  ATOMIC_O_TRUNC    truncation is part of OPEN, one round trip
//  AUTO_INVAL_DATA   changed size or mtime drops cached pages: another mount's writes are seen
//  POSIX_ACL         the kernel checks ACLs as well; it fetches them as extended attributes
//  HANDLE_KILLPRIV_V2  the kernel says when setuid and setgid must go (ops_write.cc)
//  no WRITEBACK_CACHE: a shared file's size and times must not be invented by one kernel
//  no SPLICE_*: measured, no gain for direct reads and a fifth of the speed for cached ones
//  no POSIX_LOCKS, FLOCK_LOCKS: locks are kept by the kernel of this host
constexpr uint64_t kTaken = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
                            FUSE_DONT_MASK | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |
                            FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                            FUSE_ABORT_ERROR | FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS |
                            FUSE_HANDLE_KILLPRIV_V2 | FUSE_INIT_EXT | FUSE_SETXATTR_EXT |
                            FUSE_POSIX_ACL | kInitDirectIoAllowMmap | kInitHasResend;

}  // namespace

Result<Negotiated> negotiate_init(Bytes arguments, const Negotiation& wanted) {
  fuse_init_in in{};
  constexpr size_t kOldSize = offsetof(fuse_init_in, flags2);
  if (arguments.size() < kOldSize) {
    return Status(EPROTO, "fuse/init",
                  "INIT has " + std::to_string(arguments.size()) + " bytes, expected " +
                      std::to_string(kOldSize) + " or more");
  }
  std::memcpy(&in, arguments.data(), std::min(arguments.size(), sizeof in));
  if (in.major != kMajor || in.minor < kMinorLeast) {
    return Status(EPROTO, "fuse/init",
                  "the kernel speaks FUSE " + std::to_string(in.major) + "." +
                      std::to_string(in.minor) + ", fs3 needs 7.33 (Linux 5.12) or later");
  }
  uint64_t offered = in.flags;
  if (in.flags & FUSE_INIT_EXT) offered |= static_cast<uint64_t>(in.flags2) << 32;
  uint64_t taken = offered & (kTaken | (wanted.offer_uring ? kInitOverIoUring : 0));

  Negotiated result;
  result.kernel_minor = in.minor;
  result.uring = (taken & kInitOverIoUring) != 0;
  result.resends = (taken & kInitHasResend) != 0;
  fuse_init_out& out = result.out;
  out.major = kMajor;
  out.minor = std::min(in.minor, kMinorOffered);
  out.max_readahead = std::min(in.max_readahead, wanted.max_readahead);
  out.flags = static_cast<uint32_t>(taken);
  out.flags2 = static_cast<uint32_t>(taken >> 32);
  out.max_background = static_cast<uint16_t>(std::min<uint32_t>(wanted.max_background, UINT16_MAX));
  out.congestion_threshold = static_cast<uint16_t>(out.max_background / 4 * 3);
  out.max_write = kMaxTransfer;
  out.max_pages = static_cast<uint16_t>(kMaxPages);
  out.time_gran = 1;
  return result;
}

}  // namespace fs3::fuse
