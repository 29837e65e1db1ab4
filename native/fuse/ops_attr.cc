// Attributes: getattr, statx, setattr, statfs.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "fuse/cluster_fs.h"

namespace fs3::fuse {
namespace {

constexpr uint32_t kLeastBlock = 512;

// What the kernel wants changed, in the service's words.
pb::SetAttrRequest describe(const fuse_setattr_in& in) {
  pb::SetAttrRequest body;
  if (in.valid & FATTR_MODE) body.set_mode(in.mode & 07777);
  if (in.valid & FATTR_UID) body.set_uid(in.uid);
  if (in.valid & FATTR_GID) body.set_gid(in.gid);
  if (in.valid & FATTR_SIZE) body.set_size(in.size);
  if (in.valid & FATTR_ATIME_NOW) {
    body.set_atime_now(true);
  } else if (in.valid & FATTR_ATIME) {
    body.set_atime_ns(join_time(in.atime, in.atimensec));
  }
  if (in.valid & FATTR_MTIME_NOW) {
    body.set_mtime_now(true);
  } else if (in.valid & FATTR_MTIME) {
    body.set_mtime_ns(join_time(in.mtime, in.mtimensec));
  }
  return body;
}

// A chown of neither owner nor group. All that the kernel leaves of it is that setuid and setgid of
// a file go, where the caller may change the mode. A writer asks the same way, and says it again
// with the write.
bool changes_nothing(const fuse_setattr_in& in) {
  constexpr uint32_t kChanges =
      FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME;
  return !(in.valid & kChanges);
}

bool owns_file(const Request& request, const pb::Attr& attr) {
  bool owner = request.uid() == 0 || request.uid() == attr.uid();
  return owner && attr.type() != pb::DIRECTORY;
}

}  // namespace

void ClusterFs::getattr(RequestPtr request) {
  pb::GetAttrRequest body;
  body.set_inode(request->node());
  call_for<pb::AttrReply>(std::move(request), pb::GETATTR, body,
                          [this](RequestPtr request, const pb::AttrReply& reply) {
                            reply_attr(std::move(request), reply.attr(), reply.lease());
                          });
}

// The same with the time of birth, which is all that the kernel asks this way for.
void ClusterFs::statx(RequestPtr request) {
  pb::GetAttrRequest body;
  body.set_inode(request->node());
  call_for<pb::AttrReply>(std::move(request), pb::GETATTR, body,
                          [this](RequestPtr request, const pb::AttrReply& reply) {
                            const pb::Attr& attr = reply.attr();
                            if (attr.inode() != request->node())
                              return reply_error(std::move(request), EIO);
                            fuse_attr basic{};
                            fill_attr(attr, &basic);
                            int64_t ttl = ttl_ns(reply.lease());
                            told(attr, ttl, 0);
                            reply_value(std::move(request), statx_of(basic, attr.btime_ns(), ttl));
                          });
}

// What was written before comes first: a truncate must not be undone by older bytes, and times set
// by the caller must not be replaced by the time of an earlier write.
void ClusterFs::setattr(RequestPtr request) {
  const auto& in = request->arguments<fuse_setattr_in>();
  constexpr uint32_t kOrdered = FATTR_SIZE | FATTR_ATIME | FATTR_MTIME;
  if (!(in.valid & kOrdered)) return do_setattr(std::move(request));
  uint64_t inode = request->node();
  settled(std::move(request), inode,
          [this](RequestPtr request) { do_setattr(std::move(request)); });
}

void ClusterFs::do_setattr(RequestPtr request) {
  const auto in = request->arguments<fuse_setattr_in>();
  uint64_t inode = request->node();
  pb::SetAttrRequest body = describe(in);
  body.set_inode(inode);
  bool truncates = in.valid & FATTR_SIZE;
  std::string session;
  if (in.valid & (FATTR_ATIME | FATTR_ATIME_NOW)) access_times_.set_by_hand(inode);
  if (in.valid & FATTR_FH) {
    FilePtr file = files_.find(in.fh);
    if (file != nullptr && file->inode == inode) session = file->session;
  }
  if (truncates) body.set_session(session);
  call_for<pb::AttrReply>(
      std::move(request), pb::SETATTR, body,
      [this, in, inode, truncates, session](RequestPtr request, const pb::AttrReply& reply) {
        if (truncates) client_->note_truncated(inode, in.size, reply.attr().version());
        bool kills = (in.valid & FATTR_KILL_SUIDGID) && !(in.valid & FATTR_MODE);
        kills |= changes_nothing(in) && owns_file(*request, reply.attr());
        if (!kills) return reply_attr(std::move(request), reply.attr(), reply.lease());
        nodes_.set_mode(inode, S_IFREG | (reply.attr().mode() & 07777));
        kill_privileges(std::move(request), inode, session,
                        [this](RequestPtr request) { getattr(std::move(request)); });
      });
}

void ClusterFs::statfs(RequestPtr request) {
  pb::StatfsRequest body;
  body.set_inode(request->node());  // below a directory with a quota: what that leaves
  call_for<pb::StatfsReply>(std::move(request), pb::STATFS, body,
                            [](RequestPtr request, const pb::StatfsReply& reply) {
                              uint32_t block = std::max(reply.block_size(), kLeastBlock);
                              fuse_statfs_out out{};
                              out.st.bsize = out.st.frsize = block;
                              out.st.blocks = reply.capacity_bytes() / block;
                              out.st.bfree = out.st.bavail = reply.free_bytes() / block;
                              out.st.files = reply.inodes();
                              out.st.ffree = reply.inodes_free();
                              out.st.namelen = reply.name_max() == 0 ? kNameMax : reply.name_max();
                              reply_value(std::move(request), out);
                            });
}

}  // namespace fs3::fuse
