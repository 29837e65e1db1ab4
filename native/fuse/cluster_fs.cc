#include "fuse/cluster_fs.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>

#include "base/reactor.h"

namespace fs3::fuse {
namespace {

// st_blksize: what programs take as their buffer. Large enough that one request is worth its round
// trip, small enough that a seek with buffered I/O does not fetch a megabyte.
constexpr uint32_t kBlockSize = 128u << 10;

uint32_t type_bits(pb::FileType type) {
  switch (type) {
    case pb::DIRECTORY:
      return S_IFDIR;
    case pb::LINK_SYMBOLIC:
      return S_IFLNK;
    case pb::FIFO:
      return S_IFIFO;
    case pb::SOCKET:
      return S_IFSOCK;
    case pb::CHAR_DEVICE:
      return S_IFCHR;
    case pb::BLOCK_DEVICE:
      return S_IFBLK;
    default:
      return S_IFREG;
  }
}

// Operations on an inode without a name: the inode is gone, so the name that led to it is outdated.
// On ESTALE the kernel looks the path up again, and only then reports what it finds.
bool names_nothing(uint32_t opcode) {
  return opcode == FUSE_OPEN || opcode == FUSE_GETATTR || opcode == kOpStatx ||
         opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS || opcode == FUSE_READLINK;
}

// The inodes whose attributes or entries an operation changes, as far as the request names them.
ChangeMark mark_change(NodeTable& nodes, const Request& request) {
  switch (request.opcode()) {
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
    case FUSE_CREATE:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_SETATTR:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
    case FUSE_IOCTL:
      return ChangeMark(nodes, request.node());
    case FUSE_OPEN:
      if (request.arguments<fuse_open_in>().flags & O_TRUNC) {
        return ChangeMark(nodes, request.node());
      }
      return ChangeMark();
    case FUSE_LINK:
      return ChangeMark(nodes, request.node(), request.arguments<fuse_link_in>().oldnodeid);
    case FUSE_RENAME:
      return ChangeMark(nodes, request.node(), request.arguments<fuse_rename_in>().newdir);
    case FUSE_RENAME2:
      return ChangeMark(nodes, request.node(), request.arguments<fuse_rename2_in>().newdir);
    default:
      return ChangeMark();
  }
}

// Operations that must happen once, though the kernel may send them again to the next process: all
// that add, move or take away names, of files or of attributes. The others come to the same when
// they happen twice.
bool changes_names(const Request& request) {
  switch (request.opcode()) {
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
    case FUSE_LINK:
    case FUSE_CREATE:
    case FUSE_UNLINK:
    case FUSE_RMDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_SETXATTR:
    case FUSE_REMOVEXATTR:
      return true;
    default:
      return false;
  }
}

}  // namespace

ClusterFs::ClusterFs(std::shared_ptr<client::Client> client, ClusterFsOptions options)
    : client_(std::move(client)),
      options_(std::move(options)),
      callers_(options_.squash_root),
      access_times_(client_, nodes_, options_.atime, options_.timers) {
  start_rings();
  if (options_.handover == nullptr) return;
  files_.begin(options_.handover->generation());
  directories_.begin(options_.handover->generation());
}

void ClusterFs::handle(RequestPtr request) {
  if (is_virtual(*request)) return handle_virtual(std::move(request));
  switch (request->opcode()) {
    case FUSE_LOOKUP:
      return lookup(std::move(request));
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
      return forget(std::move(request));
    case FUSE_GETATTR:
      return getattr(std::move(request));
    case FUSE_SETATTR:
      return setattr(std::move(request));
    case FUSE_READLINK:
      return readlink(std::move(request));
    case FUSE_SYMLINK:
      return symlink(std::move(request));
    case FUSE_MKNOD:
      return mknod(std::move(request));
    case FUSE_MKDIR:
      return mkdir(std::move(request));
    case FUSE_UNLINK:
    case FUSE_RMDIR:
      return remove(std::move(request));
    case FUSE_RENAME:
    case FUSE_RENAME2:
      return rename(std::move(request));
    case FUSE_LINK:
      return link(std::move(request));
    case FUSE_OPEN:
      return open(std::move(request));
    case FUSE_CREATE:
    case kOpTmpfile:
      return create(std::move(request));
    case FUSE_READ:
      return read(std::move(request));
    case FUSE_WRITE:
      return write(std::move(request));
    case FUSE_FLUSH:
      return flush(std::move(request));
    case FUSE_FALLOCATE:
      return fallocate(std::move(request));
    case FUSE_LSEEK:
      return lseek(std::move(request));
    case FUSE_COPY_FILE_RANGE:
    case kOpCopyFileRange64:
      return copy_file_range(std::move(request));
    case FUSE_SYNCFS:
      return syncfs(std::move(request));
    case FUSE_FSYNC:
      return fsync(std::move(request));
    case FUSE_RELEASE:
      return release(std::move(request));
    case FUSE_OPENDIR:
      return opendir(std::move(request));
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      return readdir(std::move(request));
    case FUSE_RELEASEDIR:
      return releasedir(std::move(request));
    case FUSE_FSYNCDIR:
      return fsyncdir(std::move(request));
    case FUSE_STATFS:
      return statfs(std::move(request));
    case kOpStatx:
      return statx(std::move(request));
    case FUSE_SETXATTR:
      return setxattr(std::move(request));
    case FUSE_GETXATTR:
      return getxattr(std::move(request));
    case FUSE_LISTXATTR:
      return listxattr(std::move(request));
    case FUSE_REMOVEXATTR:
      return removexattr(std::move(request));
    case FUSE_IOCTL:
      return ioctl(std::move(request));
    default:
      // ACCESS is answered by the kernel itself (default_permissions).
      return reply_error(std::move(request), ENOSYS);
  }
}

void ClusterFs::call(RequestPtr request, pb::Method method, const std::string& body, uint32_t umask,
                     Raw then) {
  std::string caller = callers_.of(*request);
  ChangeMark change = mark_change(nodes_, *request);
  client::Client::CallName name = client_->new_call_name();
  uint32_t record = Handover::kNone;
  if (Handover* handover = options_.handover.get();
      handover != nullptr && changes_names(*request) && !is_virtual(*request)) {
    if (is_repeated(*request)) name = *handover->earlier_call(request->unique());
    record = handover->begin_call(request->unique(), name);
  }
  // A repeated CREATE opens the file anew before it is answered; its record ends there.
  bool opens_again = is_repeated(*request) &&
                     (request->opcode() == FUSE_CREATE || request->opcode() == kOpTmpfile);
  client_->meta_call_as(
      name, static_cast<uint16_t>(method), std::move(caller), umask, body,
      [this, record, opens_again, request = std::move(request), change = std::move(change),
       then = std::move(then)](Result<std::string> reply) mutable {
        change.end();
        if (reply.ok()) {
          if (opens_again) record = Handover::kNone;
          then(std::move(request), std::move(reply).value());
        } else {
          reply_status(std::move(request), reply.status());
        }
        // Not before the answer: a request that is sent again after its record
        // went would be a second one to the service.
        if (record != Handover::kNone) options_.handover->end_call(record);
      });
}

void ClusterFs::reply_status(RequestPtr request, const Status& status) {
  int error = status.to_errno();
  if (error == ENOENT && names_nothing(request->opcode())) error = ESTALE;
  if (status.code() >= 4096) {
    std::fprintf(stderr, "fs3 mount: %s of inode %llu: %s\n",
                 std::string(operation_name(request->opcode())).c_str(),
                 static_cast<unsigned long long>(request->node()), status.to_string().c_str());
  }
  reply_error(std::move(request), error);
}

void ClusterFs::settled(RequestPtr request, uint64_t inode, Function<void(RequestPtr)> then) {
  client_->settle(inode, [this, change = ChangeMark(nodes_, inode), request = std::move(request),
                          then = std::move(then)](Status status) mutable {
    change.end();
    if (!status.ok()) return reply_status(std::move(request), status);
    then(std::move(request));
  });
}

void ClusterFs::kill_privileges(RequestPtr request, uint64_t inode, const std::string& session,
                                Function<void(RequestPtr)> then) {
  uint32_t mode = nodes_.mode(inode);
  if (mode == 0) {  // told by the process before
    pb::GetAttrRequest body;
    body.set_inode(inode);
    return call_for<pb::AttrReply>(
        std::move(request), pb::GETATTR, body,
        [this, inode, session, then = std::move(then)](RequestPtr request,
                                                       const pb::AttrReply& reply) mutable {
          nodes_.set_mode(inode, type_bits(reply.attr().type()) | (reply.attr().mode() & 07777));
          kill_privileges(std::move(request), inode, session, std::move(then));
        });
  }
  uint32_t kept = mode & ~static_cast<uint32_t>(S_ISUID);
  if (mode & S_IXGRP) kept &= ~static_cast<uint32_t>(S_ISGID);
  if (kept == mode) return then(std::move(request));
  pb::SetAttrRequest body;
  body.set_inode(inode);
  body.set_drop_privileges(true);
  body.set_session(session);
  std::string caller = callers_.of(*request);
  client_->meta_call(
      pb::SETATTR, std::move(caller), 0, body.SerializeAsString(),
      [this, inode, kept, change = ChangeMark(nodes_, inode), request = std::move(request),
       then = std::move(then)](Result<std::string> reply) mutable {
        change.end();
        if (!reply.ok()) return reply_status(std::move(request), reply.status());
        nodes_.set_mode(inode, kept);
        then(std::move(request));
      });
}

void ClusterFs::note_settled(const File& file) {
  auto told = client_->last_told(file.handle);
  nodes_.set_settled(file.inode, {told.version, told.size, told.mtime_ns});
}

int64_t ClusterFs::ttl_ns(const pb::Lease& lease, int64_t age_ns) const {
  int64_t granted = std::min<int64_t>(int64_t{lease.ttl_ms()} * 1'000'000, options_.ttl_max_ns);
  return std::max<int64_t>(0, granted - age_ns);
}

void ClusterFs::fill_attr(const pb::Attr& attr, fuse_attr* out) {
  uint64_t size = attr.size();
  int64_t mtime_ns = attr.mtime_ns();
  uint64_t local_size;
  int64_t local_mtime_ns;
  bool file = attr.type() == pb::FILE;
  if (file && client_->local_size(attr.inode(), attr.version(), &local_size, &local_mtime_ns)) {
    size = local_size;
    // As it is, also when it goes back: the kernel takes a changed mtime for changed content.
    if (local_mtime_ns != 0) mtime_ns = local_mtime_ns;
  } else if (auto settled = nodes_.settled(attr.inode()); settled.version > attr.version()) {
    // Answers overtake one another: these attributes were asked for before a settlement that has
    // come back, and the file is closed again. Passed on, they would cut it in the kernel.
    size = settled.size;
    if (settled.mtime_ns != 0) mtime_ns = settled.mtime_ns;
  }
  SplitTime atime = split_time(access_times_.overlay(attr.inode(), attr.atime_ns()));
  SplitTime mtime = split_time(mtime_ns);
  SplitTime ctime =
      split_time(std::max(attr.ctime_ns(), mtime_ns == attr.mtime_ns() ? 0 : mtime_ns));
  out->ino = attr.inode();
  out->size = size;
  // Settled writes are in the service's count; of the others no more than this can be stored.
  uint64_t unsettled = file ? (client_->unsettled_bytes(attr.inode()) + 511) / 512 : 0;
  out->blocks = file ? std::min(attr.blocks() + unsettled, (size + 511) / 512) : attr.blocks();
  out->atime = atime.seconds;
  out->atimensec = atime.nanoseconds;
  out->mtime = mtime.seconds;
  out->mtimensec = mtime.nanoseconds;
  out->ctime = ctime.seconds;
  out->ctimensec = ctime.nanoseconds;
  out->mode = type_bits(attr.type()) | (attr.mode() & 07777);
  out->nlink = attr.nlink();
  out->uid = attr.uid();
  out->gid = attr.gid();
  out->rdev = attr.rdev();
  out->blksize = kBlockSize;
}

void ClusterFs::fill_entry(const pb::Attr& attr, int64_t ttl, fuse_entry_out* out) {
  out->nodeid = attr.inode();
  fill_attr(attr, &out->attr);
  set_entry_timeout(*out, ttl, ttl);
}

void ClusterFs::told(const pb::Attr& attr, int64_t ttl, uint64_t lookups) {
  uint32_t mode = type_bits(attr.type()) | (attr.mode() & 07777);
  nodes_.told(attr.inode(), attr.version(), mode, attr.flags(), now_ns() + ttl, lookups);
  note_times(attr);
}

void ClusterFs::note_times(const pb::Attr& attr) {
  nodes_.times(attr.inode(), attr.version(), attr.atime_ns(),
               std::max(attr.mtime_ns(), attr.ctime_ns()));
}

void ClusterFs::reply_entry(RequestPtr request, const pb::Attr& attr, const pb::Lease& lease) {
  if (attr.inode() == 0) return reply_error(std::move(request), EIO);
  fuse_entry_out out{};
  int64_t ttl = ttl_ns(lease);
  fill_entry(attr, ttl, &out);
  told(attr, ttl, 1);
  reply_value(std::move(request), out);
}

void ClusterFs::reply_attr(RequestPtr request, const pb::Attr& attr, const pb::Lease& lease) {
  if (attr.inode() != request->node()) return reply_error(std::move(request), EIO);
  fuse_attr_out out{};
  int64_t ttl = ttl_ns(lease);
  fill_attr(attr, &out.attr);
  SplitTime valid = split_time(ttl);
  out.attr_valid = valid.seconds;
  out.attr_valid_nsec = valid.nanoseconds;
  told(attr, ttl, 0);
  reply_value(std::move(request), out);
}

void ClusterFs::shutdown() {
  end_rings();
  struct Waiting {
    std::mutex mutex;
    std::condition_variable changed;
    size_t open = 0;
  };
  auto waiting = std::make_shared<Waiting>();
  std::vector<FilePtr> files = files_.remove_all();
  waiting->open = files.size() + 1;
  access_times_.flush([waiting] {
    std::lock_guard lock(waiting->mutex);
    --waiting->open;
    waiting->changed.notify_all();
  });
  for (FilePtr& file : files) {
    client_->close(file->handle, [waiting, inode = file->inode](Status status) {
      if (!status.ok()) {
        std::fprintf(stderr, "fs3 mount: closing inode %llu: %s\n",
                     static_cast<unsigned long long>(inode), status.to_string().c_str());
      }
      std::lock_guard lock(waiting->mutex);
      --waiting->open;
      waiting->changed.notify_all();
    });
  }
  {
    std::unique_lock lock(waiting->mutex);
    waiting->changed.wait_for(lock, std::chrono::nanoseconds(options_.shutdown_timeout_ns),
                              [&] { return waiting->open == 0; });
  }
  client_->shutdown();
}

}  // namespace fs3::fuse
