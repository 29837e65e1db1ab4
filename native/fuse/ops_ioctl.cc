// File attributes of chattr(1): the ioctls that the kernel's file attribute calls become. 3FS's own
// are in ops_ioctl_3fs.cc.
#include <linux/fs.h>

#include <cerrno>
#include <cstring>

#include "fuse/cluster_fs.h"

namespace fs3::fuse {
namespace {

constexpr uint32_t kChattr = pb::IMMUTABLE | pb::APPEND_ONLY | pb::NO_DUMP | pb::NO_ATIME;
static_assert(pb::IMMUTABLE == FS_IMMUTABLE_FL && pb::APPEND_ONLY == FS_APPEND_FL &&
              pb::NO_DUMP == FS_NODUMP_FL && pb::NO_ATIME == FS_NOATIME_FL);

struct FlagPair {
  uint32_t flag, xflag;
};
constexpr FlagPair kPairs[] = {{pb::IMMUTABLE, FS_XFLAG_IMMUTABLE},
                               {pb::APPEND_ONLY, FS_XFLAG_APPEND},
                               {pb::NO_DUMP, FS_XFLAG_NODUMP},
                               {pb::NO_ATIME, FS_XFLAG_NOATIME}};

template <typename T>
void reply_ioctl(RequestPtr request, const T& value) {
  struct {
    fuse_ioctl_out out{};
    T value;
  } reply;
  static_assert(sizeof reply == sizeof(fuse_ioctl_out) + sizeof(T));
  if (request->arguments<fuse_ioctl_in>().out_size < sizeof(T)) {
    return reply_error(std::move(request), EINVAL);
  }
  reply.value = value;
  reply_value(std::move(request), reply);
}

fsxattr extended(uint32_t flags) {
  fsxattr all{};
  if (flags & pb::HAS_XATTRS) all.fsx_xflags |= FS_XFLAG_HASATTR;
  for (const FlagPair& pair : kPairs) {
    if (flags & pair.flag) all.fsx_xflags |= pair.xflag;
  }
  return all;
}

// False: it asks for something that fs3 has not (project ids, extent sizes, other flags).
bool plain(const fsxattr& all, uint32_t* flags) {
  uint32_t left = all.fsx_xflags & ~static_cast<uint32_t>(FS_XFLAG_HASATTR);
  *flags = 0;
  for (const FlagPair& pair : kPairs) {
    if (left & pair.xflag) *flags |= pair.flag;
    left &= ~pair.xflag;
  }
  return left == 0 && all.fsx_extsize == 0 && all.fsx_projid == 0 && all.fsx_cowextsize == 0;
}

template <typename T>
bool take_value(const Request& request, T* value) {
  if (request.payload().size() < sizeof(T)) return false;
  std::memcpy(value, request.payload().data(), sizeof(T));
  return true;
}

}  // namespace

void ClusterFs::ioctl(RequestPtr request) {
  uint32_t flags = 0;
  fsxattr all{};
  switch (request->arguments<fuse_ioctl_in>().cmd) {
    case FS_IOC_GETFLAGS:
      return with_flags(std::move(request), [](RequestPtr request, uint32_t flags) {
        reply_ioctl(std::move(request), flags & kChattr);
      });
    case FS_IOC_FSGETXATTR:
      return with_flags(std::move(request), [](RequestPtr request, uint32_t flags) {
        reply_ioctl(std::move(request), extended(flags));
      });
    case FS_IOC_SETFLAGS:
      if (!take_value(*request, &flags)) return reply_error(std::move(request), EINVAL);
      return set_flags(std::move(request), flags);
    case FS_IOC_FSSETXATTR:
      if (!take_value(*request, &all)) return reply_error(std::move(request), EINVAL);
      if (!plain(all, &flags)) return reply_error(std::move(request), EOPNOTSUPP);
      return set_flags(std::move(request), flags);
    default:
      return ioctl_3fs(std::move(request));
  }
}

void ClusterFs::with_flags(RequestPtr request, Function<void(RequestPtr, uint32_t)> then) {
  pb::GetAttrRequest body;
  body.set_inode(request->node());
  call_for<pb::AttrReply>(
      std::move(request), pb::GETATTR, body,
      [then = std::move(then)](RequestPtr request, const pb::AttrReply& reply) mutable {
        then(std::move(request), reply.attr().flags());
      });
}

void ClusterFs::set_flags(RequestPtr request, uint32_t flags) {
  pb::SetFlagsRequest body;
  body.set_inode(request->node());
  body.set_flags(flags);
  call_for<pb::AttrReply>(std::move(request), pb::SETFLAGS, body,
                          [this](RequestPtr request, const pb::AttrReply& reply) {
                            told(reply.attr(), ttl_ns(reply.lease()), 0);
                            reply_value(std::move(request), fuse_ioctl_out{});
                          });
}

}  // namespace fs3::fuse
