// File data: read, write.
#include <fcntl.h>

#include <cerrno>

#include "fuse/cluster_fs.h"

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
  uint64_t offset = in.offset;
  // A page of a mapping has its place, though the handle that the kernel picked may append.
  auto at =
      in.write_flags & FUSE_WRITE_CACHE ? client::WriteAt::kOffset : client::WriteAt::kAsOpened;
  if (is_repeated_append(*request, *file)) at = client::WriteAt::kOffset;
  if (options_.handover != nullptr) options_.handover->note_written(file->slot);
  if (file->paged) nodes_.note_pages(file->inode);
  Buffer data = request->payload_buffer(in.size);
  client_->write(file->handle, offset, std::move(data), at,
                 [this, file, request = std::move(request)](Result<size_t> written) mutable {
                   if (!written.ok()) return reply_status(std::move(request), written.status());
                   fuse_write_out out{.size = static_cast<uint32_t>(*written), .padding = 0};
                   reply_value(std::move(request), out);
                 });
}

}  // namespace fs3::fuse
