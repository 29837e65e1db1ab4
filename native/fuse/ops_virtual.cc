// What is asked about 3fs-virt (virtual_tree.h), and the removals that are asked for through it.
#include <dirent.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>

#include "fuse/cluster_fs.h"
#include "fuse/session.h"
#include "fuse/virtual_tree.h"

namespace fs3::fuse {
namespace virtual_tree {

std::optional<std::string_view> path_below(std::string_view mountpoint, std::string_view path) {
  while (mountpoint.ends_with('/')) mountpoint.remove_suffix(1);
  if (!path.starts_with('/') || !path.starts_with(mountpoint)) return std::nullopt;
  path.remove_prefix(mountpoint.size());
  if (!path.empty() && path.front() != '/') return std::nullopt;
  while (path.starts_with('/')) path.remove_prefix(1);
  return path;
}

}  // namespace virtual_tree

namespace {

using namespace virtual_tree;

constexpr int64_t kAttributesNs = 3600 * kNsPerSecond;  // they never change

void fill(uint64_t node, fuse_attr* out) {
  *out = fuse_attr{};
  out->ino = node;
  out->nlink = node == kGone ? 1 : 2;
  out->mode = node == kGone ? S_IFLNK | 0777u : S_IFDIR | (node == kTop ? 0555u : 0777u);
  out->blksize = 4096;
}

void reply_node(RequestPtr request, uint64_t node) {
  fuse_entry_out out{};
  out.nodeid = node;
  fill(node, &out.attr);
  // A link that is gone is looked up again, and not found, whenever it is named.
  int64_t valid_ns = node == kGone ? 0 : kAttributesNs;
  set_entry_timeout(out, valid_ns, valid_ns);
  reply_value(std::move(request), out);
}

void lookup_virtual(RequestPtr request, uint64_t root) {
  uint64_t parent = request->node();
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  if (parent == root && name == kTopName) return reply_node(std::move(request), kTop);
  if (parent == kTop && name == kRemoveName) return reply_node(std::move(request), kRemove);
  if (parent == kTop && name == kIovsName) return reply_node(std::move(request), kIovs);
  reply_error(std::move(request), ENOENT);
}

void getattr_virtual(RequestPtr request) {
  uint64_t node = request->node();
  if (node != kTop && node != kRemove) return reply_error(std::move(request), ENOENT);
  fuse_attr_out out{};
  fill(node, &out.attr);
  out.attr_valid = static_cast<uint64_t>(kAttributesNs / kNsPerSecond);
  reply_value(std::move(request), out);
}

void statx_virtual(RequestPtr request) {
  uint64_t node = request->node();
  if (node != kTop && node != kRemove) return reply_error(std::move(request), ENOENT);
  fuse_attr basic;
  fill(node, &basic);
  reply_value(std::move(request), statx_of(basic, 0, kAttributesNs));
}

void listxattr_virtual(RequestPtr request) {
  if (request->arguments<fuse_getxattr_in>().size == 0) {
    return reply_value(std::move(request), fuse_getxattr_out{});
  }
  reply_error(std::move(request), 0);
}

void readdir_virtual(RequestPtr request) {
  const auto& in = request->arguments<fuse_read_in>();
  uint64_t node = request->node(), offset = in.offset;
  if (in.size > kMaxTransfer) return reply_error(std::move(request), EINVAL);
  bool plus = request->opcode() == FUSE_READDIRPLUS;
  std::byte* space = request->reply_space(in.size);
  DirentPacker packer(space, in.size);
  struct {
    std::string_view name;
    uint64_t node;
  } entries[] = {{".", node},
                 {"..", node == kTop ? FUSE_ROOT_ID : kTop},
                 {kIovsName, kIovs},
                 {kRemoveName, kRemove}};
  size_t count = node == kTop ? 4 : 2;
  for (size_t i = offset; i < count; ++i) {
    bool fits =
        plus ? packer.add_plus(entries[i].name, entries[i].node, DT_DIR, i + 1, fuse_entry_out{})
             : packer.add(entries[i].name, entries[i].node, DT_DIR, i + 1);
    if (!fits) break;
  }
  reply_filled(std::move(request), space, packer.used());
}

uint64_t new_parent(const Request& request) {
  switch (request.opcode()) {
    case FUSE_RENAME:
      return request.arguments<fuse_rename_in>().newdir;
    case FUSE_RENAME2:
      return request.arguments<fuse_rename2_in>().newdir;
    default:
      return 0;
  }
}

}  // namespace

bool ClusterFs::is_virtual(const Request& request) const {
  if (virtual_tree::is_virtual(request.node())) return true;
  if (request.opcode() == FUSE_LOOKUP && request.node() == options_.root_inode) {
    Bytes payload = request.payload();
    std::string_view name;
    return take_name(payload, &name) == 0 && name == kTopName;
  }
  return virtual_tree::is_virtual(new_parent(request));
}

void ClusterFs::handle_virtual(RequestPtr request) {
  bool iovs = request->node() == kIovs || is_iov(request->node());
  switch (request->opcode()) {
    case FUSE_LOOKUP:
    case FUSE_GETATTR:
    case kOpStatx:
    case FUSE_SYMLINK:
    case FUSE_UNLINK:
    case FUSE_READLINK:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      if (iovs) return handle_iovs(std::move(request));
      break;
    default:
      break;
  }
  switch (request->opcode()) {
    case FUSE_LOOKUP:
      return lookup_virtual(std::move(request), options_.root_inode);
    case FUSE_FORGET:
      return reply_nothing(std::move(request));
    case FUSE_GETATTR:
      return getattr_virtual(std::move(request));
    case kOpStatx:
      return statx_virtual(std::move(request));
    case FUSE_GETXATTR:  // the kernel asks for ACLs with every check of a user's permission
      return reply_error(std::move(request), ENODATA);
    case FUSE_LISTXATTR:
      return listxattr_virtual(std::move(request));
    case FUSE_OPENDIR:
      return reply_value(std::move(request), fuse_open_out{});
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      return readdir_virtual(std::move(request));
    case FUSE_RELEASEDIR:
    case FUSE_FSYNCDIR:
      return reply_error(std::move(request), 0);
    case FUSE_STATFS:
      return statfs(std::move(request));
    case FUSE_SYMLINK:
      return remove_linked(std::move(request));
    case FUSE_RENAME:
    case FUSE_RENAME2:
      return remove_moved(std::move(request));
    default:
      return reply_error(std::move(request), EPERM);
  }
}

// ln -s PATH 3fs-virt/rm-rf/ANY
void ClusterFs::remove_linked(RequestPtr request) {
  if (request->node() != kRemove) return reply_error(std::move(request), EPERM);
  Bytes payload = request->payload();
  std::string_view name, target;
  int error = take_name(payload, &name);
  if (error == 0) error = take_string(payload, &target, kSymlinkMax);
  if (error != 0) return reply_error(std::move(request), error);
  auto path = path_below(session_->mountpoint(), target);
  if (!path) {
    std::fprintf(stderr, "fs3 mount: rm-rf of %.*s, which is not a path below %s\n",
                 static_cast<int>(target.size()), target.data(), session_->mountpoint().c_str());
    return reply_error(std::move(request), EINVAL);
  }
  // The mount itself: nothing that somebody meant to remove.
  if (path->empty()) return reply_error(std::move(request), EBUSY);
  walk(std::move(request), options_.root_inode, std::string(*path));
}

// Name by name and never up or along a symbolic link, so that it does not leave the mount.
void ClusterFs::walk(RequestPtr request, uint64_t parent, std::string path) {
  size_t end = path.find('/');
  std::string name = path.substr(0, end);
  size_t next = end == std::string::npos ? end : path.find_first_not_of('/', end);
  std::string rest = next == std::string::npos ? std::string() : path.substr(next);
  if (name == "..") return reply_error(std::move(request), EINVAL);
  pb::LookupRequest body;
  body.set_parent(parent);
  body.set_name(name);
  auto found = [this, parent, name, rest = std::move(rest)](RequestPtr request,
                                                            const pb::LookupReply& reply) mutable {
    const pb::Attr& attr = reply.entry().attr();
    if (!rest.empty()) return walk(std::move(request), attr.inode(), std::move(rest));
    auto gone = [this, parent, name](RequestPtr request) {
      // The kernel knows nothing of a removal by this way.
      (void)session_->invalidate_entry(parent, name);
      reply_node(std::move(request), kGone);
    };
    remove_all(std::move(request), parent, name, attr.type() == pb::DIRECTORY, std::move(gone));
  };
  call_for<pb::LookupReply>(std::move(request), pb::LOOKUP, body, std::move(found));
}

// mv NAME 3fs-virt/rm-rf/
void ClusterFs::remove_moved(RequestPtr request) {
  uint64_t parent = request->node();
  bool out_of_it = virtual_tree::is_virtual(parent) || new_parent(*request) != kRemove;
  if (out_of_it) return reply_error(std::move(request), EPERM);
  Bytes payload = request->payload();
  std::string_view name, ignored;
  int error = take_name(payload, &name);
  if (error == 0) error = take_name(payload, &ignored);
  if (error != 0) return reply_error(std::move(request), error);
  pb::LookupRequest body;
  body.set_parent(parent);
  body.set_name(name.data(), name.size());
  call_for<pb::LookupReply>(std::move(request), pb::LOOKUP, body,
                            [this, parent, name = std::string(name), moved = std::string(ignored)](
                                RequestPtr request, const pb::LookupReply& reply) mutable {
                              bool directory = reply.entry().attr().type() == pb::DIRECTORY;
                              remove_all(
                                  std::move(request), parent, name, directory,
                                  [this, moved = std::move(moved)](RequestPtr request) mutable {
                                    // The kernel will believe it to be there under its new name.
                                    (void)session_->invalidate_entry(kRemove, std::move(moved));
                                    reply_error(std::move(request), 0);
                                  });
                            });
}

void ClusterFs::remove_all(RequestPtr request, uint64_t parent, const std::string& name,
                           bool directory, Function<void(RequestPtr)> then) {
  auto removed = [this, change = ChangeMark(nodes_, parent), then = std::move(then)](
                     RequestPtr request, const pb::RemoveReply& reply) mutable {
    change.end();
    ChangeMark(nodes_, reply.inode()).end();
    then(std::move(request));
  };
  if (directory) {
    pb::RemoveTreeRequest body;
    body.set_parent(parent);
    body.set_name(name);
    return call_for<pb::RemoveReply>(std::move(request), pb::REMOVE_TREE, body, std::move(removed));
  }
  pb::UnlinkRequest body;
  body.set_parent(parent);
  body.set_name(name);
  call_for<pb::RemoveReply>(std::move(request), pb::UNLINK, body, std::move(removed));
}

}  // namespace fs3::fuse
