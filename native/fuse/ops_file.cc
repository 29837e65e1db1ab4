// Open files: open, create, flush, fsync, fsyncdir, release.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/reactor.h"
#include "fuse/cluster_fs.h"
#include "fuse/session.h"

namespace fs3::fuse {

void ClusterFs::open(RequestPtr request) {
  const auto& in = request->arguments<fuse_open_in>();
  if (!(in.flags & O_TRUNC)) return do_open(std::move(request));
  // Bytes written before must not arrive after the cut.
  uint64_t inode = request->node();
  bool kills = in.open_flags & FUSE_OPEN_KILL_SUIDGID;
  settled(std::move(request), inode, [this, inode, kills](RequestPtr request) {
    if (!kills) return do_open(std::move(request));
    kill_privileges(std::move(request), inode, "",
                    [this](RequestPtr request) { do_open(std::move(request)); });
  });
}

void ClusterFs::do_open(RequestPtr request) {
  pb::OpenRequest body;
  body.set_inode(request->node());
  body.set_flags(request->arguments<fuse_open_in>().flags);
  call(std::move(request), pb::OPEN, body.SerializeAsString(), 0,
       [this](RequestPtr request, std::string raw) { opened(std::move(request), std::move(raw)); });
}

void ClusterFs::opened(RequestPtr request, std::string raw) {
  pb::OpenReply reply;
  if (!reply.ParseFromString(raw) || reply.attr().inode() != request->node()) {
    return reply_error(std::move(request), EIO);
  }
  uint64_t inode = request->node();
  uint32_t flags = request->arguments<fuse_open_in>().flags;
  if (flags & O_TRUNC) client_->note_truncated(inode, 0, reply.attr().version());
  // The reply of OPEN carries no attributes: what the kernel believes about a file that changed
  // elsewhere (its size above all) has to go before the caller reads.
  note_times(reply.attr());
  if (nodes_.told_otherwise(inode, reply.attr().version(), now_ns())) {
    (void)session_->invalidate_attributes(inode);
  }
  fuse_open_out out{};
  if (!make_handle(reply, raw, flags, &out)) return reply_error(std::move(request), ENFILE);
  reply_value(std::move(request), out);
}

// False: too many open files; the session of the reply is closed again.
bool ClusterFs::make_handle(const pb::OpenReply& reply, const std::string& raw, uint32_t flags,
                            fuse_open_out* out) {
  const pb::Attr& attr = reply.attr();
  auto file = std::make_shared<File>();
  file->inode = attr.inode();
  file->flags = flags;
  file->session = reply.session();
  file->appends_only = file->writable() && (attr.flags() & pb::APPEND_ONLY);
  file->handle = client_->open_handle(raw, flags);
  if (file->handle == nullptr) return false;
  out->fh = files_.add(file);
  if (out->fh == 0) {
    client_->close(file->handle, [](Status) {});
    return false;
  }
  if (options_.handover != nullptr) {
    file->slot = options_.handover->note_open(out->fh, file->inode, flags);
  }
  bool unchanged =
      nodes_.content_unchanged(attr.inode(), {attr.data_version(), attr.size(), attr.mtime_ns()});
  // An append does not go where the kernel believes the end to be when another mount appends as
  // well, so the kernel must not keep its bytes as pages (ops_data.cc).
  bool appends = (flags & O_APPEND) && file->writable();
  bool direct =
      options_.direct_io || options_.atime == AtimePolicy::kAlways || (flags & O_DIRECT) || appends;
  file->paged = !direct;
  if (direct) {
    out->open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
  } else if (unchanged && (flags & O_NOATIME || !access_times_.is_due(attr.inode()))) {
    out->open_flags = FOPEN_KEEP_CACHE;
  }
  // Nothing was written through it, so close(2) has nothing to wait for.
  if (!file->writable()) out->open_flags |= FOPEN_NOFLUSH;
  return true;
}

// Also TMPFILE, which comes with "/" for a name.
void ClusterFs::create(RequestPtr request) {
  Bytes payload = request->payload();
  std::string_view name;
  const auto& in = request->arguments<fuse_create_in>();
  bool nameless = request->opcode() == kOpTmpfile;
  int error = nameless ? 0 : take_name(payload, &name);
  if (error != 0) return reply_error(std::move(request), error);
  pb::CreateRequest body;
  body.set_parent(request->node());
  body.set_name(name.data(), name.size());
  body.set_mode(in.mode & 07777);
  body.set_type(pb::FILE);
  body.set_exclusive(in.flags & O_EXCL);
  body.set_open(true);
  body.set_flags(in.flags | (nameless ? O_TMPFILE : 0));
  call(
      std::move(request), pb::CREATE, body.SerializeAsString(), in.umask,
      [this](RequestPtr request, std::string raw) { created(std::move(request), std::move(raw)); });
}

void ClusterFs::created(RequestPtr request, std::string raw) {
  pb::OpenReply reply;
  if (!reply.ParseFromString(raw) || reply.attr().inode() == 0) {
    return reply_error(std::move(request), EIO);
  }
  uint32_t flags = request->arguments<fuse_create_in>().flags;
  if (!is_repeated(*request)) return made(std::move(request), reply, raw);
  open_again(std::move(request), reply.attr().inode(), flags,
             [this](RequestPtr request, const std::string& raw) {
               pb::OpenReply reply;
               if (!reply.ParseFromString(raw)) return reply_error(std::move(request), EIO);
               made(std::move(request), reply, raw);
             });
}

void ClusterFs::made(RequestPtr request, const pb::OpenReply& reply, const std::string& raw) {
  const pb::Attr& attr = reply.attr();
  uint32_t flags = request->arguments<fuse_create_in>().flags;
  // Somebody else made it first, and this open has truncated it.
  if (!reply.created() && (flags & O_TRUNC))
    client_->note_truncated(attr.inode(), 0, attr.version());
  struct {
    fuse_entry_out entry{};
    fuse_open_out open{};
  } out;
  int64_t ttl = ttl_ns(reply.lease());
  fill_entry(attr, ttl, &out.entry);
  told(attr, ttl, 1);
  if (!make_handle(reply, raw, flags, &out.open)) {
    nodes_.forget(attr.inode(), 1);
    return reply_error(std::move(request), ENFILE);
  }
  reply_value(std::move(request), out);
}

// close(2) waits for this: errors of buffered writes are told here, and afterwards an open on any
// mount sees the bytes and the length.
void ClusterFs::flush(RequestPtr request) {
  FilePtr file = files_.find(request->arguments<fuse_flush_in>().fh);
  if (file == nullptr) return reply_error(std::move(request), files_.not_found());
  if (!file->writable()) return reply_error(std::move(request), 0);
  uint32_t written = written_before(*file);
  client_->fsync(file->handle, false,
                 [this, file, written, change = ChangeMark(nodes_, file->inode),
                  request = std::move(request)](Status status) mutable {
                   if (file->writable()) note_settled(*file);
                   change.end();
                   if (status.ok()) status = settled_now(*file, written);
                   if (!status.ok()) return reply_status(std::move(request), status);
                   reply_error(std::move(request), 0);
                 });
}

// The kernel has sent dirty pages of mappings as WRITE before, and waited for them.
void ClusterFs::fsync(RequestPtr request) {
  const auto& in = request->arguments<fuse_fsync_in>();
  FilePtr file = files_.find(in.fh);
  if (file == nullptr) return reply_error(std::move(request), files_.not_found());
  uint32_t written = written_before(*file);
  bool data_only = in.fsync_flags & FUSE_FSYNC_FDATASYNC;
  auto synced = [this, file, written, change = ChangeMark(nodes_, file->inode),
                 request = std::move(request)](Status status) mutable {
    if (file->writable()) note_settled(*file);
    change.end();
    if (status.ok()) status = settled_now(*file, written);
    if (!status.ok()) return reply_status(std::move(request), status);
    reply_error(std::move(request), 0);
  };
  if (data_only) return client_->fdatasync(file->handle, std::move(synced));
  client_->fsync(file->handle, true, std::move(synced));
}

void ClusterFs::fsyncdir(RequestPtr request) {
  pb::SyncRequest body;
  body.set_inode(request->node());
  body.set_durable(true);
  call(std::move(request), pb::SYNC, body.SerializeAsString(), 0,
       [](RequestPtr request, const std::string&) { reply_error(std::move(request), 0); });
}

// Of a mount without a block device the kernel keeps syncfs(2) to itself, but for virtiofs; what it
// does of it is to send dirty pages, which come as WRITE.
void ClusterFs::syncfs(RequestPtr request) {
  client_->sync_all([this, request = std::move(request)](Status status) mutable {
    if (!status.ok()) return reply_status(std::move(request), status);
    reply_error(std::move(request), 0);
  });
}

// Nobody waits for this answer; what could go wrong was told by flush.
void ClusterFs::release(RequestPtr request) {
  FilePtr file = files_.remove(request->arguments<fuse_release_in>().fh);
  if (file == nullptr) return reply_error(std::move(request), files_.not_found());
  if (options_.handover != nullptr) options_.handover->note_closed(file->slot);
  client_->close(file->handle,
                 [this, file, change = ChangeMark(nodes_, file->writable() ? file->inode : 0),
                  request = std::move(request)](Status status) mutable {
                   if (file->writable()) note_settled(*file);
                   change.end();
                   if (!status.ok()) return reply_status(std::move(request), status);
                   reply_error(std::move(request), 0);
                 });
}

}  // namespace fs3::fuse
