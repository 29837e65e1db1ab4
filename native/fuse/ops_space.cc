// Holes and space: fallocate, lseek (SEEK_DATA, SEEK_HOLE), copy_file_range.
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "fuse/cluster_fs.h"
#include "fuse/session.h"

namespace fs3::fuse {
namespace {

// The reply of the older copy operation has 32 bits; whole pages, as the kernel cuts them.
constexpr uint64_t kCopyMax = UINT32_MAX & ~uint64_t{kPageBytes - 1};

}  // namespace

// As before a write, but the kernel does not say who may keep setuid: root does.
void ClusterFs::without_privileges(RequestPtr request, const FilePtr& file,
                                   Function<void(RequestPtr)> then) {
  if (request->uid() == 0) return then(std::move(request));
  kill_privileges(std::move(request), file->inode, file->session, std::move(then));
}

// The kernel has sent the dirty pages of the range before, and drops its pages of it afterwards.
void ClusterFs::fallocate(RequestPtr request) {
  const auto& in = request->arguments<fuse_fallocate_in>();
  FilePtr file = files_.find(in.fh);
  if (file == nullptr) return reply_error(std::move(request), files_.not_found());
  if (!file->writable()) return reply_error(std::move(request), EBADF);
  if (file->appends_only && (in.mode & ~uint32_t{FALLOC_FL_KEEP_SIZE})) {
    return reply_error(std::move(request), EPERM);
  }
  without_privileges(std::move(request), file,
                     [this, file](RequestPtr request) { do_fallocate(std::move(request), file); });
}

void ClusterFs::do_fallocate(RequestPtr request, const FilePtr& file) {
  const auto& in = request->arguments<fuse_fallocate_in>();
  client_->fallocate(file->handle, in.mode, in.offset, in.length,
                     [this, file, change = ChangeMark(nodes_, file->inode),
                      request = std::move(request)](Status status) mutable {
                       note_settled(*file);
                       change.end();
                       if (!status.ok()) return reply_status(std::move(request), status);
                       reply_error(std::move(request), 0);
                     });
}

// Bytes that were stored into a shared mapping are in the kernel alone until it sends their pages.
// A shared mapping that can be written needs a handle that reads and writes; where one is open, the
// kernel is made to send what it has before the question is answered.
void ClusterFs::lseek(RequestPtr request) {
  const auto& in = request->arguments<fuse_lseek_in>();
  FilePtr file = files_.find(in.fh);
  if (file == nullptr) return reply_error(std::move(request), files_.not_found());
  bool known = in.whence == SEEK_DATA || in.whence == SEEK_HOLE;
  if (!known) return reply_error(std::move(request), EINVAL);
  if (in.offset > INT64_MAX) return reply_error(std::move(request), ENXIO);  // below 0
  if (!files_.may_be_mapped(file->inode)) return do_lseek(std::move(request), file);
  auto held = std::make_shared<RequestPtr>(std::move(request));
  Status asked =
      session_->flush_pages(file->inode, [this, file, held] { do_lseek(std::move(*held), file); });
  if (!asked.ok()) reply_status(std::move(*held), asked);
}

void ClusterFs::do_lseek(RequestPtr request, const FilePtr& file) {
  const auto& in = request->arguments<fuse_lseek_in>();
  auto what = in.whence == SEEK_DATA ? client::SeekFor::kData : client::SeekFor::kHole;
  uint64_t offset = in.offset;
  client_->seek(file->handle, offset, what,
                [this, file, request = std::move(request)](Result<uint64_t> found) mutable {
                  if (!found.ok()) return reply_status(std::move(request), found.status());
                  reply_value(std::move(request), fuse_lseek_out{*found});
                });
}

// The kernel has sent the dirty pages of both files before.
void ClusterFs::copy_file_range(RequestPtr request) {
  const auto& in = request->arguments<fuse_copy_file_range_in>();
  FilePtr from = files_.find(in.fh_in), to = files_.find(in.fh_out);
  if (from == nullptr || to == nullptr) return reply_error(std::move(request), files_.not_found());
  if (in.flags != 0) return reply_error(std::move(request), EINVAL);
  without_privileges(std::move(request), to, [this, from, to](RequestPtr request) {
    do_copy(std::move(request), from, to);
  });
}

void ClusterFs::do_copy(RequestPtr request, const FilePtr& from, const FilePtr& to) {
  const auto& in = request->arguments<fuse_copy_file_range_in>();
  bool wide = request->opcode() == kOpCopyFileRange64;
  uint64_t length = wide ? in.len : std::min(in.len, kCopyMax);
  uint64_t from_offset = in.off_in, to_offset = in.off_out;
  if (options_.handover != nullptr) options_.handover->note_written(to->slot);
  client_->copy_range(from->handle, from_offset, to->handle, to_offset, length,
                      [this, from, to, wide, change = ChangeMark(nodes_, to->inode),
                       request = std::move(request)](Result<uint64_t> copied) mutable {
                        change.end();
                        if (!copied.ok()) return reply_status(std::move(request), copied.status());
                        if (wide) return reply_value(std::move(request), CopyRangeOut{*copied});
                        reply_value(
                            std::move(request),
                            fuse_write_out{.size = static_cast<uint32_t>(*copied), .padding = 0});
                      });
}

}  // namespace fs3::fuse
