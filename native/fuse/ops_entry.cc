// Names: lookup, forget, mknod, mkdir, symlink, readlink, link, unlink, rmdir, rename.
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "fuse/cluster_fs.h"

namespace fs3::fuse {
namespace {

constexpr uint32_t kRenameNoReplace = 1;
constexpr uint32_t kRenameExchange = 2;
constexpr uint32_t kRenameWhiteout = 4;

pb::FileType type_of(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFIFO:
      return pb::FIFO;
    case S_IFSOCK:
      return pb::SOCKET;
    case S_IFCHR:
      return pb::CHAR_DEVICE;
    case S_IFBLK:
      return pb::BLOCK_DEVICE;
    case 0:
    case S_IFREG:
      return pb::FILE;
    default:
      return pb::TYPE_NONE;
  }
}

}  // namespace

void ClusterFs::lookup(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  pb::LookupRequest body;
  body.set_parent(request->node());
  body.set_name(name.data(), name.size());
  call_for<pb::LookupReply>(std::move(request), pb::LOOKUP, body,
                            [this](RequestPtr request, const pb::LookupReply& reply) {
                              reply_entry(std::move(request), reply.entry().attr(),
                                          reply.entry().lease());
                            });
}

void ClusterFs::forget(RequestPtr request) {
  if (request->opcode() == FUSE_FORGET) {
    nodes_.forget(request->node(), request->arguments<fuse_forget_in>().nlookup);
  } else {
    Bytes payload = request->payload();
    for (; payload.size() >= sizeof(fuse_forget_one);
         payload = payload.subspan(sizeof(fuse_forget_one))) {
      fuse_forget_one one;
      std::memcpy(&one, payload.data(), sizeof one);
      nodes_.forget(one.nodeid, one.nlookup);
    }
  }
  reply_nothing(std::move(request));
}

void ClusterFs::mknod(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  const auto& in = request->arguments<fuse_mknod_in>();
  pb::FileType type = type_of(in.mode);
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  if (type == pb::TYPE_NONE) return reply_error(std::move(request), EINVAL);
  pb::CreateRequest body;
  body.set_parent(request->node());
  body.set_name(name.data(), name.size());
  body.set_mode(in.mode & 07777);
  body.set_type(type);
  body.set_rdev(in.rdev);
  body.set_exclusive(true);
  call_for<pb::OpenReply>(
      std::move(request), pb::CREATE, body,
      [this](RequestPtr request, const pb::OpenReply& reply) {
        reply_entry(std::move(request), reply.attr(), reply.lease());
      },
      in.umask);
}

void ClusterFs::mkdir(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  const auto& in = request->arguments<fuse_mkdir_in>();
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  pb::MkdirRequest body;
  body.set_parent(request->node());
  body.set_name(name.data(), name.size());
  body.set_mode(in.mode & 07777);
  call_for<pb::EntryReply>(
      std::move(request), pb::MKDIR, body,
      [this](RequestPtr request, const pb::EntryReply& reply) {
        reply_entry(std::move(request), reply.entry().attr(), reply.entry().lease());
      },
      in.umask);
}

void ClusterFs::symlink(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name, target;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  if (int error = take_string(payload, &target, kSymlinkMax)) {
    return reply_error(std::move(request), error);
  }
  pb::SymlinkRequest body;
  body.set_parent(request->node());
  body.set_name(name.data(), name.size());
  body.set_target(target.data(), target.size());
  call_for<pb::EntryReply>(std::move(request), pb::SYMLINK, body,
                           [this](RequestPtr request, const pb::EntryReply& reply) {
                             reply_entry(std::move(request), reply.entry().attr(),
                                         reply.entry().lease());
                           });
}

void ClusterFs::readlink(RequestPtr request) {
  pb::ReadlinkRequest body;
  body.set_inode(request->node());
  call_for<pb::ReadlinkReply>(std::move(request), pb::READLINK, body,
                              [this](RequestPtr request, const pb::ReadlinkReply& reply) {
                                const std::string& target = reply.target();
                                if (target.size() > kSymlinkMax) {
                                  return reply_error(std::move(request), EIO);
                                }
                                access_times_.read(request->node());
                                reply_bytes(std::move(request), target.data(), target.size());
                              });
}

void ClusterFs::link(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  pb::LinkRequest body;
  body.set_inode(request->arguments<fuse_link_in>().oldnodeid);
  body.set_parent(request->node());
  body.set_name(name.data(), name.size());
  call_for<pb::EntryReply>(
      std::move(request), pb::LINK, body, [this](RequestPtr request, const pb::EntryReply& reply) {
        reply_entry(std::move(request), reply.entry().attr(), reply.entry().lease());
      });
}

void ClusterFs::remove(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  bool directory = request->opcode() == FUSE_RMDIR;
  auto answer = [this](RequestPtr request, const pb::RemoveReply& reply) {
    ChangeMark(nodes_, reply.inode()).end();  // its link count went down
    reply_error(std::move(request), 0);
  };
  if (directory) {
    pb::RmdirRequest body;
    body.set_parent(request->node());
    body.set_name(name.data(), name.size());
    return call_for<pb::RemoveReply>(std::move(request), pb::RMDIR, body, answer);
  }
  pb::UnlinkRequest body;
  body.set_parent(request->node());
  body.set_name(name.data(), name.size());
  call_for<pb::RemoveReply>(std::move(request), pb::UNLINK, body, answer);
}

void ClusterFs::rename(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name, new_name;
  int error = take_name(payload, &name);
  if (error == 0) error = take_name(payload, &new_name);
  if (error != 0) return reply_error(std::move(request), error);
  bool second = request->opcode() == FUSE_RENAME2;
  uint32_t flags = second ? request->arguments<fuse_rename2_in>().flags : 0;
  if (flags & ~(kRenameNoReplace | kRenameExchange | kRenameWhiteout)) {
    return reply_error(std::move(request), EINVAL);
  }
  pb::RenameRequest body;
  body.set_old_parent(request->node());
  body.set_old_name(name.data(), name.size());
  body.set_new_parent(second ? request->arguments<fuse_rename2_in>().newdir
                             : request->arguments<fuse_rename_in>().newdir);
  body.set_new_name(new_name.data(), new_name.size());
  body.set_flags(flags);
  call_for<pb::RenameReply>(
      std::move(request), pb::RENAME, body,
      [this](RequestPtr request, const pb::RenameReply& reply) {
        ChangeMark(nodes_, reply.entry().attr().inode(), reply.replaced_inode()).end();
        reply_error(std::move(request), 0);
      });
}

}  // namespace fs3::fuse
