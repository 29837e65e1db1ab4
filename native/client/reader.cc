#include "client/reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "client/append.h"
#include "client/core.h"
#include "client/holes.h"
#include "client/meta.h"
#include "client/writer.h"
#include "meta.pb.h"
#include "storage.pb.h"

namespace fs3::client {

namespace {

// Large enough that a frame's fixed cost does not show, small enough that many disks share a read.
constexpr uint64_t kPieceBytes = 1u << 20;
// Of a file with holes: so many pieces are read without asking which chunks there are.
constexpr size_t kPiecesUnasked = 4;
constexpr uint32_t kRunsMax = 1024;
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
    if (offset_ + length_ <= file_.size) return plan(lock);
    lock.unlock();
    place_appends(core_, handle_->file, PlaceWhen::kWhole,
                  [self = shared_from_this()] { self->beyond(); });
  }

 private:
  // Reads behind the end that was known.
  void beyond() {
    fresh_size(core_, handle_->file, [self = shared_from_this()](Result<uint64_t> size) {
      if (!size.ok()) return self->finish(size.status());
      std::unique_lock again(self->file_.mutex);
      self->plan(again);
    });
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
    bool holes = file_.has_holes;
    lock.unlock();
    auto pieces = split(gaps);
    if (holes && pieces.size() > kPiecesUnasked) return ask_for_holes(std::move(pieces));
    read_pieces(std::move(pieces));
  }

  // One question per chain instead of one read per absent chunk.
  void ask_for_holes(std::vector<Gap> pieces) {
    const uint64_t chunk_size = file_.placement->chunk_size();
    uint64_t first = pieces.front().offset / chunk_size;
    uint64_t last = pieces.back().offset / chunk_size;
    query_chunks(core_, lane_, handle_->file, first, last, kRunsMax,
                 [self = shared_from_this(), pieces](Result<ChunkMap> map) mutable {
                   if (!map.ok()) return self->finish(map.status());
                   self->fill_holes(*map, pieces);
                   self->read_pieces(std::move(pieces));
                 });
  }

  void fill_holes(const ChunkMap& map, std::vector<Gap>& pieces) {
    std::erase_if(pieces, [&](const Gap& piece) {
      uint64_t index = piece.offset / file_.placement->chunk_size();
      auto next = map.next(index);
      bool absent = index < map.through() && (!next || next->index > index);
      if (!absent) return false;
      if (holes_ == Holes::kRefuse) error_ = hole_refused();
      std::memset(into_ + (piece.offset - offset_), 0, piece.length);
      return true;
    });
  }

  void read_pieces(std::vector<Gap> pieces) {
    if (pieces.empty()) return finish_all();
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
        error_ = hole_refused();
      }
    } else if (error_.ok()) {
      error_ = reply.status;
    }
    FS3_CHECK(open_pieces_ > 0);
    if (--open_pieces_ > 0) return;
    finish_all();
  }

  static Status hole_refused() { return Status(ENODATA, "client/read", "a hole"); }
  void finish_all() {
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

void fresh_size(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                Function<void(Result<uint64_t>)> done) {
  uint64_t size;
  bool fresh;
  {
    std::lock_guard lock(file->mutex);
    size = file->size;
    fresh = now_ns() - file->size_checked_ns <= kSizeFreshNs;
  }
  if (fresh) return done(size);
  proto::meta::GetAttrRequest request;
  request.set_inode(file->inode);
  auto heard = [file, done = std::move(done)](Result<std::string> reply) mutable {
    // ENOENT: unlinked while open; nobody else can make it grow.
    if (!reply.ok() && reply.status().code() != ENOENT) return done(reply.status());
    proto::meta::AttrReply parsed;
    uint64_t size;
    {
      std::lock_guard lock(file->mutex);
      if (reply.ok() && parsed.ParseFromString(*reply)) file->adopt(parsed.attr(), now_ns());
      size = file->size;
    }
    done(size);
  };
  send_own_meta_call(core, core->lane(), proto::meta::GETATTR, request.SerializeAsString(),
                     std::move(heard));
}

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
