#include "client/space.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "client/append.h"
#include "client/chunks.h"
#include "client/core.h"
#include "client/holes.h"
#include "client/meta.h"
#include "client/session.h"
#include "client/writer.h"
#include "meta.pb.h"

namespace fs3::client {

namespace {

// Chunks of one punch that are worked on at the same time.
constexpr size_t kAtOnce = 32;
constexpr uint32_t kRunsMax = 1024;

// Chunk by chunk through what storage has of the range. Lane thread only.
class Punch : public std::enable_shared_from_this<Punch> {
 public:
  Punch(std::shared_ptr<Core> core, std::shared_ptr<OpenFile> file, uint64_t begin, uint64_t end,
        Function<void(Status)> done)
      : core_(std::move(core)),
        lane_(core_->lane()),
        file_(std::move(file)),
        chunk_size_(file_->placement->chunk_size()),
        begin_(begin),
        end_(end),
        index_(begin / chunk_size_),
        job_{core_, &lane_, file_->inode, file_->placement, file_->credential(Right::kWrite)},
        done_(std::move(done)) {}

  void start() {
    // Errors of earlier writes are told by the handles; what was lost needs no hole.
    flush_all(core_, file_, [self = shared_from_this()](Status) {
      self->lane_.run([self] { self->next_page(); });
    });
  }

 private:
  void next_page() {
    uint64_t last = (end_ - 1) / chunk_size_;
    if (index_ > last || !error_.ok()) return finish();
    query_chunks(core_, lane_, file_, index_, last, kRunsMax,
                 [self = shared_from_this(), last](Result<ChunkMap> map) {
                   if (!map.ok()) {
                     self->error_ = map.status();
                     return self->finish();
                   }
                   self->limit_ = std::min(map->through(), last + 1);
                   self->map_.emplace(std::move(map).value());
                   self->fill();
                 });
  }

  void fill() {
    while (open_ < kAtOnce && error_.ok() && index_ < limit_) {
      auto chunk = map_->next(index_);
      if (!chunk || chunk->index >= limit_) {
        index_ = limit_;
        break;
      }
      index_ = chunk->index + 1;
      begin(*chunk);
    }
    if (open_ == 0) next_page();
  }

  void begin(const ChunkMap::Found& chunk) {
    uint64_t base = chunk.index * chunk_size_;
    uint64_t from = begin_ > base ? begin_ - base : 0;
    uint64_t to = std::min(end_ - base, chunk_size_);
    if (from >= chunk.length) return;
    ++open_;
    if (from == 0 && to >= chunk.length) return remove(chunk.index);
    uint64_t size;
    {
      std::lock_guard lock(file_->mutex);
      size = file_->size;
    }
    // Beyond the size there is nothing that anybody was told of.
    to = std::min({to, uint64_t{chunk.length}, size > base ? size - base : 0});
    auto ended = [self = shared_from_this()](Status status) { self->ended(std::move(status)); };
    if (from >= to) return ended(Status());
    write_zeros(core_, file_, base + from, to - from, std::move(ended));
  }

  void remove(uint64_t index) {
    bool claimed;
    {
      std::lock_guard lock(file_->mutex);
      claimed = file_->dirty.claim(index);
    }
    if (!claimed) {
      return wait_for_chunk(core_, file_, index, [self = shared_from_this(), index] {
        self->lane_.run([self, index] { self->remove(index); });
      });
    }
    remove_chunk(job_, index, [self = shared_from_this(), index](Status status) {
      chunk_finished(self->core_, self->lane_, self->file_, index);
      self->ended(std::move(status));
    });
  }

  void ended(Status status) {
    if (!status.ok() && error_.ok()) error_ = std::move(status);
    // Through the queue: calls that end at once must not nest.
    lane_.later([self = shared_from_this()] {
      --self->open_;
      self->fill();
    });
  }

  void finish() {
    {
      std::lock_guard lock(file_->mutex);
      file_->note_change(wall_ns());
      file_->made_holes = true;
    }
    auto done = std::move(done_);
    done(std::move(error_));
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  const std::shared_ptr<OpenFile> file_;
  const uint64_t chunk_size_;
  const uint64_t begin_;
  const uint64_t end_;
  uint64_t index_;      // the next chunk to look at
  uint64_t limit_ = 0;  // what map_ knows ends here
  std::optional<ChunkMap> map_;
  size_t open_ = 0;
  const ChunkJob job_;
  Status error_;
  Function<void(Status)> done_;
};

Status check_range(const Handle& handle, uint32_t mode, uint64_t offset, uint64_t length) {
  constexpr const char* kWhere = "client/fallocate";
  constexpr uint32_t kHole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  constexpr uint32_t kKnown[] = {0, FALLOC_FL_KEEP_SIZE, kHole, FALLOC_FL_ZERO_RANGE,
                                 FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
  if (std::find(std::begin(kKnown), std::end(kKnown), mode) == std::end(kKnown)) {
    return Status(EOPNOTSUPP, kWhere, "mode " + std::to_string(mode) + " is not supported");
  }
  if (!handle.writable()) return Status(EBADF, kWhere, "not open for writing");
  if (length == 0) return Status(EINVAL, kWhere, "length is 0");
  if (offset > kFileBytesMax || length > kFileBytesMax - offset) {
    return Status(EFBIG, kWhere, "offset + length is beyond 2^62 bytes");
  }
  return Status();
}

void fallocate_placed(const std::shared_ptr<Core>& core, const FileHandle& handle, uint32_t mode,
                      uint64_t offset, uint64_t length, Function<void(Status)> done) {
  bool zeros = mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
  bool keep_size = mode & FALLOC_FL_KEEP_SIZE;
  if (!zeros) return allocate_file(core, handle, offset, length, keep_size, std::move(done));
  auto told = [core, file = handle->file, done = std::move(done)](Status punched) mutable {
    if (!punched.ok()) return done(std::move(punched));
    settle_file(core, file, std::move(done));
  };
  auto punch = [core, file = handle->file, offset, length,
                told = std::move(told)](Status allocated) mutable {
    if (!allocated.ok()) return told(std::move(allocated));
    punch_file(core, file, offset, length, std::move(told));
  };
  if (mode & FALLOC_FL_PUNCH_HOLE) return punch(Status());
  allocate_file(core, handle, offset, length, keep_size, std::move(punch));
}

}  // namespace

void punch_file(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                uint64_t offset, uint64_t length, Function<void(Status)> done) {
  FS3_CHECK(length > 0);
  std::make_shared<Punch>(core, file, offset, offset + length, std::move(done))->start();
}

void allocate_file(const std::shared_ptr<Core>& core, const FileHandle& handle, uint64_t offset,
                   uint64_t length, bool keep_size, Function<void(Status)> done) {
  auto file = handle->file;
  proto::meta::AllocateRequest request;
  request.set_inode(file->inode);
  request.set_offset(offset);
  request.set_length(length);
  request.set_keep_size(keep_size);
  {
    std::lock_guard lock(file->mutex);
    request.set_session(handle->session);
  }
  send_own_meta_call(core, core->lane(), proto::meta::ALLOCATE, request.SerializeAsString(),
                     [file, done = std::move(done)](Result<std::string> reply) mutable {
                       proto::meta::AttrReply parsed;
                       if (!reply.ok()) return done(reply.status());
                       if (!parsed.ParseFromString(*reply)) {
                         return done(Status(EIO, "client/fallocate", "the reply does not decode"));
                       }
                       {
                         std::lock_guard lock(file->mutex);
                         file->adopt(parsed.attr(), now_ns());
                         // Also when an older answer than ours was overtaken.
                         file->size = std::max(file->size, parsed.attr().size());
                       }
                       done(Status());
                     });
}

void fallocate_file(const std::shared_ptr<Core>& core, const FileHandle& handle, uint32_t mode,
                    uint64_t offset, uint64_t length, Function<void(Status)> done) {
  Status status = check_range(*handle, mode, offset, length);
  if (!status.ok()) return done(std::move(status));
  // What was appended before lies in front of what the file is made longer by.
  place_appends(core, handle->file, PlaceWhen::kNow,
                [core, handle, mode, offset, length, done = std::move(done)]() mutable {
                  fallocate_placed(core, handle, mode, offset, length, std::move(done));
                });
}

}  // namespace fs3::client
