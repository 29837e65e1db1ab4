// Rings of shared memory (native/usrbio): 3fs-virt/iovs, where programs register them, and the I/O
// that they ask for on files of this mount.
#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/check.h"
#include "fuse/cluster_fs.h"
#include "fuse/ring_keeper.h"
#include "fuse/session.h"
#include "fuse/virtual_tree.h"
#include "usrbio/ring.h"

namespace fs3::fuse {
namespace {

using namespace virtual_tree;
using usrbio::RingServer;

constexpr int64_t kPauseNs = 10 * kNsPerSecond;  // as LET_GO_S of fs3/mount/native.py

void fill_iovs(fuse_attr* out) {
  *out = fuse_attr{};
  out->ino = kIovs;
  out->nlink = 2;
  out->mode = S_IFDIR | 0777u;
  out->blksize = 4096;
}

void fill_name(const RingServer::Name& name, fuse_attr* out) {
  *out = fuse_attr{};
  out->ino = kIovFirst - name.number;
  out->nlink = 1;
  out->mode = S_IFLNK | 0400u;
  out->uid = name.owner.uid;
  out->size = name.target.size();
  out->blksize = 4096;
}

// Not believed for any time: another user must not see it, and a dead program's is gone.
void reply_name(RequestPtr request, const RingServer::Name& name) {
  fuse_entry_out out{};
  out.nodeid = kIovFirst - name.number;
  fill_name(name, &out.attr);
  reply_value(std::move(request), out);
}

}  // namespace

// What the server of rings may do with the files of this mount.
class ClusterFs::RingPort final : public usrbio::RingFiles {
 public:
  explicit RingPort(ClusterFs& fs) : fs_(fs) {
    if (fs.options_.handover != nullptr) {
      secret_ = fs.options_.handover->secret();
    } else {
      FS3_CHECK(getrandom(secret_.data(), secret_.size(), 0) ==
                static_cast<ssize_t>(secret_.size()));
    }
  }

  uint64_t key(File& file, uint64_t handle) const {
    uint64_t known = file.ring_key.load(std::memory_order_relaxed);
    if (known != 0) return known;
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    const unsigned char* made =
        HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
             reinterpret_cast<const unsigned char*>(&handle), sizeof handle, digest, &size);
    FS3_CHECK(made != nullptr && size >= sizeof known);
    std::memcpy(&known, digest, sizeof known);
    known |= 1;
    file.ring_key.store(known, std::memory_order_relaxed);
    return known;
  }

  void ring_read(const usrbio::FileName& name, uint64_t offset, std::byte* into, size_t length,
                 bool refuse_holes, Function<void(Result<size_t>)> done) override {
    Status refused;
    FilePtr file = named(name, O_WRONLY, &refused);
    if (file == nullptr) return done(std::move(refused));
    if (!(file->flags & O_NOATIME)) fs_.access_times_.read(file->inode);
    fs_.client_->read(file->handle, offset, into, length, std::move(done),
                      refuse_holes ? client::Holes::kRefuse : client::Holes::kZeros);
  }

  void ring_write(const usrbio::FileName& name, uint64_t offset, Buffer data,
                  Function<void(Result<size_t>)> done) override {
    Status refused;
    FilePtr file = named(name, O_RDONLY, &refused);
    if (file == nullptr) return done(std::move(refused));
    if (file->appends_only) return done(Status(EPERM, "fuse/ring", "the file only grows"));
    auto write = [this, file, offset, data = std::move(data),
                  done = std::move(done)](Status status) mutable {
      if (!status.ok()) return done(std::move(status));
      write_now(std::move(file), offset, std::move(data), std::move(done));
    };
    if (name.uid == 0) return write(Status());
    without_privileges(std::move(file), name.uid, std::move(write));
  }

 private:
  // Null: why not, in `refused`. `wrong_mode`: opened like this, it is of no use.
  FilePtr named(const usrbio::FileName& name, uint32_t wrong_mode, Status* refused) const {
    FilePtr file = fs_.files_.find(name.file);
    if (file == nullptr || key(*file, name.file) != name.key) {
      int error = file == nullptr ? fs_.files_.not_found() : EBADF;
      *refused = Status(static_cast<uint32_t>(error), "fuse/ring", "no such open file");
      return nullptr;
    }
    if ((file->flags & O_ACCMODE) != wrong_mode) return file;
    *refused = Status(EACCES, "fuse/ring", "the file was not opened for that");
    return nullptr;
  }

  void write_now(FilePtr file, uint64_t offset, Buffer data, Function<void(Result<size_t>)> done) {
    if (fs_.options_.handover != nullptr) fs_.options_.handover->note_written(file->slot);
    fs_.client_->write(
        file->handle, offset, std::move(data), client::WriteAt::kThrough,
        [this, file, offset, done = std::move(done)](Result<size_t> written) mutable {
          if (!written.ok()) return done(std::move(written));
          forget(file->inode, offset, *written, std::move(done));
        });
  }

  // A write by an ordinary user takes setuid and setgid away, as the kernel has it done.
  void without_privileges(FilePtr file, uint32_t uid, Function<void(Status)> then) {
    uint32_t mode = fs_.nodes_.mode(file->inode);
    bool known = mode != 0;
    if (known && !(mode & S_ISUID) && !(mode & S_ISGID && mode & S_IXGRP)) return then(Status());
    pb::Caller caller;
    caller.set_uid(uid);
    pb::SetAttrRequest body;
    body.set_inode(file->inode);
    body.set_drop_privileges(true);
    body.set_session(file->session);
    fs_.client_->meta_call(pb::SETATTR, caller.SerializeAsString(), 0, body.SerializeAsString(),
                           [this, file, change = ChangeMark(fs_.nodes_, file->inode),
                            then = std::move(then)](Result<std::string> reply) mutable {
                             change.end();
                             pb::AttrReply parsed;
                             if (!reply.ok()) return then(reply.status());
                             if (!parsed.ParseFromString(*reply))
                               return then(Status(EIO, "fuse/ring", "a reply"));
                             fs_.nodes_.set_mode(file->inode,
                                                 S_IFREG | (parsed.attr().mode() & 07777));
                             (void)fs_.session_->invalidate_attributes(file->inode);
                             then(Status());
                           });
  }

  // What the kernel has of these bytes is outdated; `done` when it has forgotten them.
  void forget(uint64_t inode, uint64_t offset, size_t length, Function<void(Result<size_t>)> done) {
    if (fs_.nodes_.take_belief(inode, now_ns())) {
      (void)fs_.session_->invalidate_attributes(inode);
    }
    if (!fs_.nodes_.take_pages(inode)) return done(length);
    fs_.nodes_.content_changed(inode);
    auto shared = std::make_shared<Function<void(Result<size_t>)>>(std::move(done));
    Status queued = fs_.session_->invalidate_data(inode, static_cast<int64_t>(offset),
                                                  static_cast<int64_t>(length),
                                                  [shared, length] { (*shared)(length); });
    if (!queued.ok()) {
      fs_.nodes_.note_pages(inode);
      (*shared)(std::move(queued));
    }
  }

  ClusterFs& fs_;
  Handover::Secret secret_;
};

ClusterFs::Rings::Rings() = default;
ClusterFs::Rings::~Rings() = default;

void ClusterFs::start_rings() {
  if (options_.reactors.empty()) return;
  rings_.port = std::make_unique<RingPort>(*this);
  if (options_.keeper >= 0) rings_.keeper = std::make_unique<SocketRingKeeper>(options_.keeper);
  rings_.server =
      std::make_unique<RingServer>(options_.reactors, *rings_.port, rings_.keeper.get());
}

void ClusterFs::restore_rings() {
  if (rings_.server == nullptr) return;
  for (const KeptRing& kept : options_.kept) {
    Status status = rings_.server->restore(kept.name, kept.descriptors);
    if (status.ok()) continue;
    std::fprintf(stderr, "fs3 mount: a ring of the process before is gone: %s\n",
                 status.to_string().c_str());
    if (rings_.keeper != nullptr) rings_.keeper->drop(kept.name.name);
  }
}

void ClusterFs::pause_rings() {
  if (rings_.server != nullptr && !rings_.server->pause(kPauseNs)) {
    std::fprintf(stderr, "fs3 mount: some I/Os of rings are done again by the next process\n");
  }
}

void ClusterFs::end_rings() {
  if (rings_.server != nullptr) rings_.server->end(ENOTCONN);
}

// ---- 3fs-virt/iovs and what is in it

void ClusterFs::handle_iovs(RequestPtr request) {
  if (rings_.server == nullptr) return reply_error(std::move(request), ENOENT);
  bool directory = request->node() == kIovs;
  switch (request->opcode()) {
    case FUSE_LOOKUP:
      return lookup_iov(std::move(request));
    case FUSE_GETATTR:
    case kOpStatx:
      return getattr_iov(std::move(request));
    case FUSE_SYMLINK:
      if (directory) return register_iov(std::move(request));
      break;
    case FUSE_UNLINK:
      if (directory) return unregister_iov(std::move(request));
      break;
    case FUSE_READLINK:
      return readlink_iov(std::move(request));
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
      return list_iovs(std::move(request));
    default:
      break;
  }
  reply_error(std::move(request), EPERM);
}

void ClusterFs::lookup_iov(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  auto found = rings_.server->find(name, request->uid());
  if (!found) return reply_error(std::move(request), ENOENT);
  reply_name(std::move(request), *found);
}

void ClusterFs::getattr_iov(RequestPtr request) {
  fuse_attr basic;
  if (request->node() == kIovs) {
    fill_iovs(&basic);
  } else {
    auto found = rings_.server->find(kIovFirst - request->node(), request->uid());
    if (!found) return reply_error(std::move(request), ENOENT);
    fill_name(*found, &basic);
  }
  if (request->opcode() == kOpStatx) return reply_value(std::move(request), statx_of(basic, 0, 0));
  fuse_attr_out out{};
  out.attr = basic;
  reply_value(std::move(request), out);
}

void ClusterFs::readlink_iov(RequestPtr request) {
  auto found = is_iov(request->node())
                   ? rings_.server->find(kIovFirst - request->node(), request->uid())
                   : std::nullopt;
  if (!found) return reply_error(std::move(request), EINVAL);
  reply_bytes(std::move(request), found->target.data(), found->target.size());
}

void ClusterFs::register_iov(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name, target;
  int error = take_name(payload, &name);
  if (error == 0) error = take_string(payload, &target, kSymlinkMax);
  if (error != 0) return reply_error(std::move(request), error);
  auto added = rings_.server->add(name, target, {request->uid(), request->pid()});
  if (added.ok()) return reply_name(std::move(request), *added);
  if (added.status().code() != EEXIST) {
    std::fprintf(stderr, "fs3 mount: 3fs-virt/iovs/%.*s: %s\n", static_cast<int>(name.size()),
                 name.data(), added.status().to_string().c_str());
  }
  reply_error(std::move(request), added.status().to_errno());
}

void ClusterFs::unregister_iov(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  if (int error = take_name(payload, &name)) return reply_error(std::move(request), error);
  uint32_t uid = request->uid();
  rings_.server->remove(name, uid, [request = std::move(request)](Status status) mutable {
    reply_error(std::move(request), status.to_errno());
  });
}

void ClusterFs::list_iovs(RequestPtr request) {
  const auto& in = request->arguments<fuse_read_in>();
  uint64_t offset = in.offset;
  if (in.size > kMaxTransfer) return reply_error(std::move(request), EINVAL);
  bool plus = request->opcode() == FUSE_READDIRPLUS;
  auto names = rings_.server->list(request->uid());
  std::byte* space = request->reply_space(in.size);
  DirentPacker packer(space, in.size);
  auto add = [&](std::string_view name, uint64_t node, uint32_t type, uint64_t next) {
    return plus ? packer.add_plus(name, node, type, next, fuse_entry_out{})
                : packer.add(name, node, type, next);
  };
  // Cookies: 1 and 2 behind the dots, then the number of the name and 3.
  bool fits = offset >= 1 || add(".", kIovs, DT_DIR, 1);
  fits = fits && (offset >= 2 || add("..", kTop, DT_DIR, 2));
  for (const auto& name : names) {
    if (!fits) break;
    if (name.number + 3 <= offset) continue;
    fits = add(name.name, kIovFirst - name.number, DT_LNK, name.number + 3);
  }
  reply_filled(std::move(request), space, packer.used());
}

// How a program that has the file open names it in a ring.
void ClusterFs::register_ring_file(RequestPtr request) {
  const auto& in = request->arguments<fuse_ioctl_in>();
  FilePtr file = files_.find(in.fh);
  if (rings_.port == nullptr) return reply_error(std::move(request), ENOTTY);
  if (file == nullptr || file->inode != request->node()) {
    return reply_error(std::move(request), EBADF);
  }
  struct {
    fuse_ioctl_out out{};
    usrbio::FileReference reference;
  } reply;
  if (in.out_size < sizeof reply.reference) return reply_error(std::move(request), EINVAL);
  reply.reference = {usrbio::kRingVersion, file->flags, in.fh, rings_.port->key(*file, in.fh)};
  reply_value(std::move(request), reply);
}

}  // namespace fs3::fuse
