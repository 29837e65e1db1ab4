// 3FS's ioctls (usrbio/ioctl.h): what its library and its tools ask of an open file or directory.
#include <cerrno>
#include <cstring>

#include "fuse/cluster_fs.h"
#include "fuse/session.h"
#include "usrbio/ioctl.h"
#include "usrbio/ring.h"

namespace fs3::fuse {
namespace {

using namespace usrbio;

template <typename T>
void reply_value_of(RequestPtr request, const T& value) {
  struct {
    fuse_ioctl_out out{};
    T value;
  } reply;
  if (request->arguments<fuse_ioctl_in>().out_size < sizeof(T)) {
    return reply_error(std::move(request), EINVAL);
  }
  reply.value = value;
  reply_bytes(std::move(request), &reply, sizeof reply.out + sizeof value);
}

void reply_done(RequestPtr request) { reply_value(std::move(request), fuse_ioctl_out{}); }

template <typename T>
bool take(const Request& request, T* value) {
  if (request.payload().size() < sizeof(T)) return false;
  std::memcpy(value, request.payload().data(), sizeof(T));
  return true;
}

// Empty: no name of a file.
template <size_t kSize>
std::string name_in(const char (&field)[kSize]) {
  std::string name(field, strnlen(field, kSize));
  bool plain = name.size() <= kNameMax && name.find('/') == std::string::npos;
  return plain && name != "." && name != ".." ? name : std::string();
}

}  // namespace

void ClusterFs::ioctl_3fs(RequestPtr request) {
  switch (request->arguments<fuse_ioctl_in>().cmd) {
    case kIoctlRingFile:
      return register_ring_file(std::move(request));
    case kIoctlMagic:
      return reply_value_of(std::move(request), kMagic);
    case kIoctlGetVersion:
      return reply_value_of(std::move(request), kIoctlVersion);
    case kIoctlPathOffset:
      return reply_value_of(std::move(request),
                            static_cast<uint32_t>(session_->mountpoint().size()));
    case kIoctlMountName:
      return reply_value_of(std::move(request), std::array<char, kMountNameBytes>{"fs3"});
    case kIoctlFsync:
      return settle_3fs(std::move(request));
    case kIoctlHardLink:
      return link_3fs(std::move(request));
    case kIoctlMove:
      return move_3fs(std::move(request));
    case kIoctlRemove:
      return remove_3fs(std::move(request));
    default:
      return reply_error(std::move(request), ENOTTY);
  }
}

// Also by who only reads: what this mount has written is settled.
void ClusterFs::settle_3fs(RequestPtr request) {
  uint64_t inode = request->node();
  settled(std::move(request), inode, reply_done);
}

void ClusterFs::link_3fs(RequestPtr request) {
  HardLink in;
  if (!take(*request, &in)) return reply_error(std::move(request), EINVAL);
  std::string name = name_in(in.name);
  if (name.empty()) return reply_error(std::move(request), EINVAL);
  pb::LinkRequest body;
  body.set_inode(request->node());
  body.set_parent(inode_of_root(in.parent));
  body.set_name(name);
  call_for<pb::EntryReply>(
      std::move(request), pb::LINK, body,
      [this, parent = body.parent(), name](RequestPtr request, const pb::EntryReply&) {
        ChangeMark(nodes_, parent, request->node()).end();
        forget_entry(parent, name);
        (void)session_->invalidate_attributes(request->node());
        reply_done(std::move(request));
      });
}

void ClusterFs::move_3fs(RequestPtr request) {
  Move in;
  if (!take(*request, &in)) return reply_error(std::move(request), EINVAL);
  std::string from = name_in(in.from_name), to = name_in(in.to_name);
  bool here = inode_of_root(in.from_parent) == request->node();
  if (from.empty() || to.empty() || !here) return reply_error(std::move(request), EINVAL);
  pb::RenameRequest body;
  body.set_old_parent(request->node());
  body.set_old_name(from);
  body.set_new_parent(inode_of_root(in.to_parent));
  body.set_new_name(to);
  call_for<pb::RenameReply>(
      std::move(request), pb::RENAME, body,
      [this, from, to, target = body.new_parent()](RequestPtr request,
                                                   const pb::RenameReply& reply) {
        ChangeMark(nodes_, reply.entry().attr().inode(), reply.replaced_inode()).end();
        ChangeMark(nodes_, target).end();
        forget_entry(request->node(), from);
        forget_entry(target, to);
        reply_done(std::move(request));
      });
}

void ClusterFs::remove_3fs(RequestPtr request) {
  Remove in;
  if (!take(*request, &in)) return reply_error(std::move(request), EINVAL);
  std::string name = name_in(in.name);
  bool here = inode_of_root(in.parent) == request->node();
  if (name.empty() || !here) return reply_error(std::move(request), EINVAL);
  pb::LookupRequest body;
  body.set_parent(request->node());
  body.set_name(name);
  auto found = [this, name, all = in.recursive](RequestPtr request, const pb::LookupReply& reply) {
    bool directory = reply.entry().attr().type() == pb::DIRECTORY;
    auto then = [this, name](RequestPtr request) {
      forget_entry(request->node(), name);
      reply_done(std::move(request));
    };
    uint64_t parent = request->node();
    if (all || !directory) {
      return remove_all(std::move(request), parent, name, directory, std::move(then));
    }
    pb::RmdirRequest body;
    body.set_parent(parent);
    body.set_name(name);
    call_for<pb::RemoveReply>(
        std::move(request), pb::RMDIR, body,
        [then = std::move(then)](RequestPtr request, const pb::RemoveReply&) mutable {
          then(std::move(request));
        });
  };
  call_for<pb::LookupReply>(std::move(request), pb::LOOKUP, body, std::move(found));
}

// Programs know inodes by stat(2), where the root of every mount is FUSE_ROOT_ID.
uint64_t ClusterFs::inode_of_root(uint64_t inode) const {
  return inode == FUSE_ROOT_ID ? options_.root_inode : inode;
}

// The kernel knows nothing of a change by this way.
void ClusterFs::forget_entry(uint64_t parent, const std::string& name) {
  (void)session_->invalidate_attributes(parent);
  (void)session_->invalidate_entry(parent, name);
}

}  // namespace fs3::fuse
