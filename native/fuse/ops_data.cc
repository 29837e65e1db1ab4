// File data: read, write.
#include <fcntl.h>

#include <cerrno>

#include "fuse/cluster_fs.h"
#include "fuse/session.h"

namespace fs3::fuse {

void ClusterFs::read(RequestPtr request) {
  const auto& in = request->arguments<fuse_read_in>();
  FilePtr file = files_.find(in.fh);
  if (file == nullptr) return reply_error(std::move(request), files_.not_found());
  if (in.size > kMaxTransfer) return reply_error(std::move(request), EINVAL);
  if (!(file->flags & O_NOATIME)) access_times_.read(file->inode);
  if (file->paged) nodes_.note_pages(file->inode);
  // The bytes are produced where the kernel takes them.
  std::byte* space = request->reply_space(in.size);
  uint64_t offset = in.offset;
  size_t size = in.size;
  client_->read(file->handle, offset, space, size,
                [this, file, space, request = std::move(request)](Result<size_t> got) mutable {
                  if (!got.ok()) return reply_status(std::move(request), got.status());
                  reply_filled(std::move(request), space, *got);
                });
}

void ClusterFs::write(RequestPtr request) {
  const auto& in = request->arguments<fuse_write_in>();
  if (in.size > request->payload().size()) return reply_error(std::move(request), EINVAL);
  FilePtr file = files_.find(in.fh);
  // Pages of a mapping carry a handle that the kernel guessed; any writable one of the inode will
  // do.
  bool guessed = in.write_flags & FUSE_WRITE_CACHE;
  if (guessed && (file == nullptr || !file->writable())) file = files_.any_of(request->node());
  if (file == nullptr) return reply_error(std::move(request), files_.not_found());
  if (!file->writable() || file->inode != request->node()) {
    return reply_error(std::move(request), EBADF);
  }
  if (!(in.write_flags & FUSE_WRITE_KILL_SUIDGID)) {
    return do_write(std::move(request), std::move(file));
  }
  uint64_t inode = file->inode;
  kill_privileges(std::move(request), inode, file->session,
                  [this, file](RequestPtr request) { do_write(std::move(request), file); });
}

void ClusterFs::do_write(RequestPtr request, FilePtr file) {
  const auto& in = request->arguments<fuse_write_in>();
  // A page of a mapping has its place, though the handle that the kernel picked may append.
  bool page = in.write_flags & FUSE_WRITE_CACHE;
  if (options_.handover != nullptr) options_.handover->note_written(file->slot);
  // The flags of this write: they may have changed since the open, by fcntl(2) or RWF_DSYNC.
  bool appends = (in.flags & O_APPEND) || file->appends_only;
  if (file->paged) nodes_.note_pages(file->inode);
  if (!page && appends) return append(std::move(request), std::move(file));
  uint64_t offset = in.offset;
  Buffer data = request->payload_buffer(in.size);
  client_->write(file->handle, offset, std::move(data), client::WriteAt::kOffset,
                 [this, file, request = std::move(request)](Result<size_t> written) mutable {
                   if (!written.ok()) return reply_status(std::move(request), written.status());
                   written_out(std::move(request), file, *written);
                 });
}

// The kernel's offset is where it believes the end to be; the client finds the true one. The kernel
// keeps no pages of what goes through a handle that was opened for appending. One that has become
// an appending handle has a page cache, and what the kernel put into it goes when the place is
// another one.
//
// Of the handle and its inode there is one append at a time here: the kernel holds the lock of the
// inode. So one that is sent again after a takeover was the last of what its process had asked a
// place for.
void ClusterFs::append(RequestPtr request, FilePtr file) {
  const auto& in = request->arguments<fuse_write_in>();
  // Unaligned memory makes a write(2) of up to kMaxTransfer two requests (negotiate.cc), the first
  // of which ends with a page.
  bool more = in.size < kMaxTransfer && in.size > kMaxTransfer - kPageBytes;
  bool cached = file->paged;
  auto mode = more     ? client::AppendMode::kMoreFollows
              : cached ? client::AppendMode::kPlaced
                       : client::AppendMode::kBuffered;
  uint64_t expected = in.offset;
  client::Client::AppendName name{client_->new_call_name(), false};
  uint32_t record = Handover::kNone;
  if (Handover* handover = options_.handover.get()) {
    if (is_repeated(*request)) name = {*handover->earlier_call(request->unique()), true};
    record = handover->begin_call(request->unique(), name.call);
    handover->note_piece(file->slot, more);
  }
  Buffer data = request->payload_buffer(in.size);
  client_->append(file->handle, std::move(data), mode, name,
                  [this, file, cached, expected, record,
                   request = std::move(request)](Result<client::Appended> appended) mutable {
                    bool elsewhere = appended.ok() &&
                                     appended->offset != client::Appended::kUnplaced &&
                                     appended->offset != expected;
                    if (cached && elsewhere) (void)session_->invalidate_data(file->inode, 0, 0);
                    if (appended.ok()) {
                      written_out(std::move(request), file, appended->length);
                    } else {
                      reply_status(std::move(request), appended.status());
                    }
                    // Not before the answer (call() in cluster_fs.cc).
                    if (record != Handover::kNone) options_.handover->end_call(record);
                  });
}

// After the bytes were taken: waits until they are durable where the write asks for it.
void ClusterFs::written_out(RequestPtr request, const FilePtr& file, size_t length) {
  const auto& in = request->arguments<fuse_write_in>();
  bool page = in.write_flags & FUSE_WRITE_CACHE;
  bool appends = (in.flags & O_APPEND) || file->appends_only;
  bool more = in.size < kMaxTransfer && in.size > kMaxTransfer - kPageBytes && appends;
  bool syncs = (in.flags & O_DSYNC) && !(file->flags & O_DSYNC) && !page && !more;
  fuse_write_out out{.size = static_cast<uint32_t>(length), .padding = 0};
  if (!syncs) return reply_value(std::move(request), out);
  client_->fsync(file->handle, true,
                 [this, file, out, request = std::move(request)](Status status) mutable {
                   note_settled(*file);
                   if (!status.ok()) return reply_status(std::move(request), status);
                   reply_value(std::move(request), out);
                 });
}

}  // namespace fs3::fuse
