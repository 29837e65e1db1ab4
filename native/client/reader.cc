#include "client/reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "client/core.h"
#include "client/meta.h"
#include "client/writer.h"
#include "meta.pb.h"
#include "storage.pb.h"

namespace fs3::client {

namespace {

// Large enough that a frame's fixed cost does not show, small enough that many disks share a read.
constexpr uint64_t kPieceBytes = 1u << 20;
// A size heard this recently is not asked again at the end of the file, so reading a small file to
// its end costs no second call.
constexpr int64_t kSizeFreshNs = 50'000'000;

// One read(), alive until its `done` ran. Pieces end on the lane's thread, so plain counters do.
class ReadOp : public std::enable_shared_from_this<ReadOp> {
 public:
  ReadOp(std::shared_ptr<Core> core, Lane& lane, FileHandle handle, uint64_t offset,
         std::byte* into, size_t length, Holes holes, Function<void(Result<size_t>)> done)
      : core_(std::move(core)),
        lane_(lane),
        handle_(std::move(handle)),
        file_(*handle_->file),
        offset_(offset),
        into_(into),
        length_(length),
        holes_(holes),
        done_(std::move(done)) {}

  // On the caller's thread.
  void start() {
    std::unique_lock lock(file_.mutex);
    bool beyond = offset_ + length_ > file_.size;
    bool stale = now_ns() - file_.size_checked_ns > kSizeFreshNs;
    if (beyond && stale) {
      lock.unlock();
      return ask_size();
    }
    plan(lock);
  }

 private:
  void ask_size() {
    proto::meta::GetAttrRequest request;
    request.set_inode(file_.inode);
    lane_.run([self = shared_from_this(), body = request.SerializeAsString()] {
      send_own_meta_call(self->core_, self->lane_, proto::meta::GETATTR, body,
                         [self](Result<std::string> reply) { self->heard_size(std::move(reply)); });
    });
  }

  void heard_size(Result<std::string> reply) {
    proto::meta::AttrReply parsed;
    if (!reply.ok() && reply.status().code() != ENOENT) return finish(reply.status());
    std::unique_lock lock(file_.mutex);
    // ENOENT: unlinked while open; nobody else can make it grow.
    if (reply.ok() && parsed.ParseFromString(*reply)) file_.adopt(parsed.attr(), now_ns());
    plan(lock);
  }

  // Takes what is dirty here, under the file's lock, and asks the chains for the gaps. Bytes that
  // are acknowledged after this moment may come from either side; both are current.
  void plan(std::unique_lock<std::mutex>& lock) {
    uint64_t end = std::min(offset_ + length_, file_.size);
    length_ = end > offset_ ? end - offset_ : 0;
    if (handle_->direct() && !settled_ && file_.dirty.overlaps(offset_, length_))
      return settle(lock);
    auto gaps = handle_->direct() ? std::vector<Gap>{{offset_, length_}}
                                  : file_.dirty.read(offset_, {into_, length_});
    lock.unlock();
    auto pieces = split(gaps);
    if (pieces.empty()) return finish(length_);
    open_pieces_ = pieces.size();
    lane_.run([self = shared_from_this(), pieces = std::move(pieces)] {
      for (const Gap& piece : pieces) self->read_piece(piece);
    });
  }

  // A direct read shows what the chains acknowledged, as its direct write waits for them. Bytes
  // that are still on their way may fail, and another client may read the older ones after this
  // read.
  void settle(std::unique_lock<std::mutex>& lock) {
    settled_ = true;
    const uint64_t chunk_size = file_.placement->chunk_size();
    uint64_t first = offset_ / chunk_size;
    uint64_t last = (offset_ + length_ - 1) / chunk_size;
    uint64_t epoch = file_.dirty.want(first, last);
    file_.waiters.push_back(
        {epoch, first, last, false, Status(), &lane_, [self = shared_from_this()](Status) {
           std::unique_lock again(self->file_.mutex);
           self->plan(again);
         }});
    lock.unlock();
    pump(core_, lane_, handle_->file);
  }

  std::vector<Gap> split(const std::vector<Gap>& gaps) const {
    const uint64_t chunk_size = file_.placement->chunk_size();
    std::vector<Gap> pieces;
    for (Gap gap : gaps) {
      while (gap.length > 0) {
        uint64_t room = chunk_size - gap.offset % chunk_size;
        uint64_t length = std::min({gap.length, room, kPieceBytes});
        pieces.push_back({gap.offset, length});
        gap.offset += length;
        gap.length -= length;
      }
    }
    return pieces;
  }

  void read_piece(const Gap& piece) {
    const uint32_t chunk_size = file_.placement->chunk_size();
    std::byte* into = into_ + (piece.offset - offset_);
    ChunkCall call;
    call.method = proto::storage::READ;
    call.placement = file_.placement;
    call.chunk_index = piece.offset / chunk_size;
    call.bytes = piece.length;
    call.credential = file_.credential(Right::kRead);
    call.fill = [inode = file_.inode, piece, chunk_size, into](const Route& route,
                                                               net::CallSpec& spec) {
      proto::storage::ReadRequest request;
      request.set_target_id(route.target);
      request.set_chain_id(route.chain);
      request.set_chain_version(route.version);
      request.mutable_chunk()->set_inode(inode);
      request.mutable_chunk()->set_index(piece.offset / chunk_size);
      request.set_offset(static_cast<uint32_t>(piece.offset % chunk_size));
      request.set_length(static_cast<uint32_t>(piece.length));
      spec.body = request.SerializeAsString();
      spec.sink = {{net::Channel::register_memory(into, piece.length), 0, piece.length}};
    };
    call.done = [self = shared_from_this(), into, length = piece.length](net::Reply reply) {
      self->piece_done(into, length, std::move(reply));
    };
    start_chunk_call(core_, lane_, std::move(call));
  }

  // The transport has compared the bytes with their CRC32C. A chunk may be shorter than the file
  // says, or not exist: holes are zeros.
  void piece_done(std::byte* into, uint64_t length, net::Reply reply) {
    if (reply.status.ok()) {
      FS3_CHECK(reply.sink_length <= length);
      std::memset(into + reply.sink_length, 0, length - reply.sink_length);
      if (holes_ == Holes::kRefuse && reply.sink_length < length && error_.ok()) {
        error_ = Status(ENODATA, "client/read", "a hole");
      }
    } else if (error_.ok()) {
      error_ = reply.status;
    }
    FS3_CHECK(open_pieces_ > 0);
    if (--open_pieces_ > 0) return;
    if (!error_.ok()) return finish(error_);
    finish(length_);
  }

  void finish(Result<size_t> result) {
    if (result.ok()) core_->counters.read_bytes.fetch_add(*result, std::memory_order_relaxed);
    core_->counters.inflight.fetch_sub(1, std::memory_order_relaxed);
    auto done = std::move(done_);
    done(std::move(result));
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  const FileHandle handle_;
  OpenFile& file_;
  const uint64_t offset_;
  std::byte* const into_;
  uint64_t length_;
  const Holes holes_;
  Function<void(Result<size_t>)> done_;
  bool settled_ = false;  // direct: what was dirty when the read began has ended
  size_t open_pieces_ = 0;
  Status error_;
};

}  // namespace

void read_file(std::shared_ptr<Core> core, FileHandle handle, uint64_t offset, std::byte* into,
               size_t length, Holes holes, Function<void(Result<size_t>)> done) {
  if (!handle->readable()) return done(Status(EBADF, "client/read", "not open for reading"));
  if (offset > INT64_MAX || length > INT64_MAX - offset) {
    return done(Status(EINVAL, "client/read", "offset + length is beyond the largest file"));
  }
  core->counters.reads.fetch_add(1, std::memory_order_relaxed);
  core->counters.inflight.fetch_add(1, std::memory_order_relaxed);
  Lane& lane = core->lane();
  std::make_shared<ReadOp>(std::move(core), lane, std::move(handle), offset, into, length, holes,
                           std::move(done))
      ->start();
}

}  // namespace fs3::client
