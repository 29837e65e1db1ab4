#include "client/copy.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "client/append.h"
#include "client/core.h"
#include "client/holes.h"
#include "client/reader.h"
#include "client/space.h"
#include "client/writer.h"

namespace fs3::client {

namespace {

constexpr uint64_t kPieceBytes = 1u << 20;
// Read and not yet taken by the target: bounds the memory of one copy.
constexpr size_t kPiecesAtOnce = 8;
// Of one call: its caller waits without an answer meanwhile, and comes again. Holes do not count.
constexpr uint64_t kCallBytesMax = 256ull << 20;

// Lane thread only.
class Copy : public std::enable_shared_from_this<Copy> {
 public:
  Copy(std::shared_ptr<Core> core, FileHandle from, uint64_t from_offset, FileHandle to,
       uint64_t to_offset, Function<void(Result<uint64_t>)> done)
      : core_(std::move(core)),
        lane_(core_->lane()),
        from_(std::move(from)),
        to_(std::move(to)),
        begin_(from_offset),
        to_begin_(to_offset),
        at_(from_offset),
        done_(std::move(done)) {}

  // What was appended to either file comes first.
  void start(uint64_t length) {
    place_appends(core_, to_->file, PlaceWhen::kNow, [self = shared_from_this(), length] {
      place_appends(self->core_, self->from_->file, PlaceWhen::kNow,
                    [self, length] { self->source_size(length); });
    });
  }

 private:
  void source_size(uint64_t length) {
    auto sized = [self = shared_from_this(), length](Result<uint64_t> size) {
      if (!size.ok()) return self->fail(size.status());
      self->end_ = std::min(self->begin_ + length, std::max(*size, self->begin_));
      self->target_size();
    };
    fresh_size(core_, from_->file, std::move(sized));
  }

  void target_size() {
    if (end_ == begin_) return finish();
    fresh_size(core_, to_->file, [self = shared_from_this()](Result<uint64_t> size) {
      if (!size.ok()) return self->fail(size.status());
      self->to_size_ = *size;
      self->lane_.run([self] { self->next(); });
    });
  }

  // The next data of the source, and the hole in front of it.
  void next() {
    if (at_ - begin_ - holes_ >= kCallBytesMax) end_ = at_;
    if (at_ >= end_ || !error_.ok()) return grow();
    next_data(core_, from_->file, at_, end_, false, [self = shared_from_this()](Result<Gap> data) {
      if (!data.ok()) {
        self->error_ = data.status();
        return self->grow();
      }
      self->data_end_ = data->length > 0 ? data->offset + data->length : self->end_;
      self->hole(data->length > 0 ? data->offset : self->end_);
    });
  }

  void hole(uint64_t hole_end) {
    uint64_t target = to_begin_ + (at_ - begin_);
    uint64_t target_end = std::min(to_begin_ + (hole_end - begin_), to_size_);
    holes_ += hole_end - at_;
    at_ = hole_end;
    if (target >= target_end) return later([](Copy& copy) { copy.pieces(); });
    punch_file(core_, to_->file, target, target_end - target,
               [self = shared_from_this()](Status status) {
                 if (!status.ok()) self->error_ = std::move(status);
                 self->later([](Copy& copy) { copy.pieces(); });
               });
  }

  void pieces() {
    while (open_ < kPiecesAtOnce && at_ < data_end_ && error_.ok()) {
      uint64_t length = std::min(kPieceBytes - at_ % kPieceBytes, data_end_ - at_);
      uint64_t offset = std::exchange(at_, at_ + length);
      ++open_;
      piece(offset, length);
    }
    if (open_ == 0) next();
  }

  void piece(uint64_t offset, uint64_t length) {
    Buffer buffer = Buffer::allocate(length);
    read_file(core_, from_, offset, buffer.data(), length, Holes::kZeros,
              [self = shared_from_this(), buffer, offset, length](Result<size_t> got) {
                if (!got.ok()) return self->piece_done(offset, got.status());
                // Cut meanwhile by somebody: what is behind counts as not copied.
                if (*got < length) self->end_ = std::min(self->end_, offset + *got);
                if (*got == 0) return self->piece_done(offset, Status());
                uint64_t target = self->to_begin_ + (offset - self->begin_);
                write_file(self->core_, self->to_, target, buffer.slice(0, *got),
                           self->to_->through(), [self, offset](const Result<size_t>& written) {
                             self->piece_done(offset, written.status());
                           });
              });
  }

  void piece_done(uint64_t offset, const Status& status) {
    later([offset, status](Copy& copy) {
      if (!status.ok()) {
        // Pieces in front of the first that failed are copied.
        if (copy.error_.ok()) copy.error_ = status;
        copy.end_ = std::min(copy.end_, offset);
      }
      copy.data_end_ = std::min(copy.data_end_, copy.end_);
      --copy.open_;
      copy.pieces();
    });
  }

  // A hole at the end of what was copied makes the target longer all the same.
  void grow() {
    uint64_t target_end = to_begin_ + (end_ - begin_);
    bool longer;
    {
      std::lock_guard lock(to_->file->mutex);
      longer = end_ > begin_ && target_end > to_->file->size;
    }
    if (!longer) return finish();
    allocate_file(core_, to_, to_begin_, end_ - begin_, false,
                  [self = shared_from_this()](Status status) {
                    if (!status.ok()) return self->fail(status);
                    self->finish();
                  });
  }

  template <typename Step>
  void later(Step step) {
    lane_.later([self = shared_from_this(), step = std::move(step)] { step(*self); });
  }

  void finish() {
    if (end_ == begin_ && !error_.ok()) return fail(error_);
    auto done = std::move(done_);
    done(end_ - begin_);
  }
  void fail(const Status& status) {
    auto done = std::move(done_);
    done(status);
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  const FileHandle from_, to_;
  const uint64_t begin_, to_begin_;
  uint64_t at_;            // of the source: the next byte to look at
  uint64_t end_ = 0;       // of what is or will be copied
  uint64_t data_end_ = 0;  // of the data that is being copied
  uint64_t holes_ = 0;     // bytes of [begin_, at_) that are holes
  uint64_t to_size_ = 0;
  size_t open_ = 0;
  Status error_;
  Function<void(Result<uint64_t>)> done_;
};

Status check(const Handle& from, uint64_t from_offset, const Handle& to, uint64_t to_offset,
             uint64_t length) {
  constexpr const char* kWhere = "client/copy";
  if (!from.readable()) return Status(EBADF, kWhere, "the source is not open for reading");
  if (!to.writable()) return Status(EBADF, kWhere, "the target is not open for writing");
  if (to.appends()) return Status(EBADF, kWhere, "the target is open for appending");
  if (from_offset > kFileBytesMax || to_offset > kFileBytesMax) {
    return Status(EFBIG, kWhere, "offset is beyond 2^62 bytes");
  }
  bool overlap =
      from.file == to.file && from_offset < to_offset + length && to_offset < from_offset + length;
  if (overlap) return Status(EINVAL, kWhere, "the ranges of one file overlap");
  return Status();
}

}  // namespace

void copy_range(const std::shared_ptr<Core>& core, const FileHandle& from, uint64_t from_offset,
                const FileHandle& to, uint64_t to_offset, uint64_t length,
                Function<void(Result<uint64_t>)> done) {
  // Who asks for "all of it" names no length that fits behind the offset.
  length =
      std::min(length, kFileBytesMax - std::min(kFileBytesMax, std::max(from_offset, to_offset)));
  if (Status status = check(*from, from_offset, *to, to_offset, length); !status.ok()) {
    return done(std::move(status));
  }
  std::make_shared<Copy>(core, from, from_offset, to, to_offset, std::move(done))->start(length);
}

}  // namespace fs3::client
