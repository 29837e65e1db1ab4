#include "fuse/attributes.h"

#include <sys/stat.h>

namespace fs3::fuse {
namespace {

StatxTime statx_time(uint64_t seconds, uint32_t nanoseconds) {
  return {static_cast<int64_t>(seconds), nanoseconds, 0};
}

}  // namespace

StatxOut statx_of(const fuse_attr& basic, int64_t btime_ns, int64_t ttl_ns) {
  StatxOut out{};
  SplitTime valid = split_time(ttl_ns), birth = split_time(btime_ns);
  out.attr_valid = valid.seconds;
  out.attr_valid_nsec = valid.nanoseconds;
  Statx& stat = out.stat;
  stat.mask = STATX_BASIC_STATS | STATX_BTIME;
  stat.blksize = basic.blksize;
  stat.nlink = basic.nlink;
  stat.uid = basic.uid;
  stat.gid = basic.gid;
  stat.mode = static_cast<uint16_t>(basic.mode);
  stat.ino = basic.ino;
  stat.size = basic.size;
  stat.blocks = basic.blocks;
  stat.atime = statx_time(basic.atime, basic.atimensec);
  stat.mtime = statx_time(basic.mtime, basic.mtimensec);
  stat.ctime = statx_time(basic.ctime, basic.ctimensec);
  stat.btime = statx_time(birth.seconds, birth.nanoseconds);
  // The kernel's encoding of device numbers in 32 bits: new_decode_dev().
  stat.rdev_major = (basic.rdev & 0xfff00) >> 8;
  stat.rdev_minor = (basic.rdev & 0xff) | ((basic.rdev >> 12) & 0xfff00);
  return out;
}

}  // namespace fs3::fuse
