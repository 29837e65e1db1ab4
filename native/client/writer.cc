#include "client/writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/crc32c.h"
#include "client/append.h"
#include "client/core.h"
#include "client/session.h"
#include "storage.pb.h"

namespace fs3::client {

namespace {

// From the first dirty byte until it is sent by itself: bounds what a crash of this process loses.
constexpr int64_t kWriteBackDelayNs = 200'000'000;
// Smaller writes are copied into a growing buffer, larger ones kept as they came.
constexpr size_t kKeepBytesMin = 64u << 10;
// Many scattered small writes cost memory and frames, whatever their bytes: sent from this number
// on.
constexpr size_t kExtentsMax = 1024;
// All files together. Above it every write waits until its own file is clean.
constexpr uint64_t kDirtyFilesMax = 16;
// A file under a quota: how much more than the service knows of it may hold. With the number of
// files that a client writes at the same time, what it may go beyond the limit.
constexpr uint64_t kGrowthUnsettledMax = 64u << 20;
constexpr int kFreshIdentitiesMax = 3;
constexpr size_t kZeroBytes = 1u << 20;

struct Callback {
  Lane* lane;
  Function<void()> call;
};

void run_all(std::vector<Callback> callbacks) {
  for (auto& [lane, call] : callbacks) lane->run(std::move(call));
}

// Those whose wait is over. REQUIRES: mutex held.
std::vector<Callback> take_due(OpenFile& file) {
  std::vector<Callback> callbacks;
  std::erase_if(file.waiters, [&](OpenFile::Waiter& waiter) {
    bool all = waiter.last_chunk == UINT64_MAX;
    bool settled = all ? file.dirty.settled(waiter.epoch)
                       : file.dirty.settled(waiter.epoch, waiter.first_chunk, waiter.last_chunk);
    if (!settled) return false;
    callbacks.push_back(
        {waiter.lane, [done = std::move(waiter.done), status = std::move(waiter.status)]() mutable {
           done(std::move(status));
         }});
    return true;
  });
  std::erase_if(file.room_waiters, [&](OpenFile::RoomWaiter& waiter) {
    if (file.dirty.bytes() > waiter.bytes_max) return false;
    callbacks.push_back({waiter.lane, std::move(waiter.done)});
    return true;
  });
  return callbacks;
}

// One run until its outcome is known. Lane thread only.
class RunOp : public std::enable_shared_from_this<RunOp> {
 public:
  RunOp(std::shared_ptr<Core> core, Lane& lane, std::shared_ptr<OpenFile> file, Run run)
      : core_(std::move(core)), lane_(lane), file_(std::move(file)), run_(std::move(run)) {
    for (const Buffer& piece : run_.pieces) {
      checksum_ = crc32c(checksum_, piece.data(), piece.size());
    }
    identity_ = core_->identities.acquire(chunk());
  }

  void send() {
    ChunkCall call;
    call.method = proto::storage::WRITE;
    call.placement = file_->placement;
    call.chunk_index = run_.chunk;
    call.to_head = true;
    call.bytes = run_.length;
    call.credential = file_->credential(Right::kWrite);
    call.fill = [self = shared_from_this()](const Route& route, net::CallSpec& spec) {
      self->fill(route, spec);
    };
    call.done = [self = shared_from_this()](net::Reply reply) { self->ended(reply.status); };
    start_chunk_call(core_, lane_, std::move(call));
  }

 private:
  ChunkId chunk() const { return {file_->inode, run_.chunk}; }

  void fill(const Route& route, net::CallSpec& spec) const {
    proto::storage::WriteRequest request;
    request.set_target_id(route.target);
    request.set_chain_id(route.chain);
    request.set_chain_version(route.version);
    request.mutable_chunk()->set_inode(file_->inode);
    request.mutable_chunk()->set_index(run_.chunk);
    request.set_offset(run_.offset);
    request.set_length(run_.length);
    auto* identity = request.mutable_identity();
    identity->set_client_id(identity_.client_id.data(), identity_.client_id.size());
    identity->set_channel(identity_.channel);
    identity->set_sequence(identity_.sequence);
    request.set_chunk_size(file_->placement->chunk_size());
    request.set_checksum(checksum_);
    spec.body = request.SerializeAsString();
    for (const Buffer& piece : run_.pieces) {
      spec.source.push_back(
          {net::Channel::register_memory(piece.data(), piece.size()), 0, piece.size()});
    }
    spec.keep_alive = run_.pieces;
    spec.source_checksum = checksum_;
    spec.has_source_checksum = true;
  }

  void ended(const Status& status) {
    if (status.code() == kDuplicateOld && fresh_identities_ < kFreshIdentitiesMax) {
      ++fresh_identities_;  // rule 3 of the header
      identity_ = core_->identities.next(identity_.channel);
      return send();
    }
    if (status.ok() || refused_for_good(status)) {
      core_->identities.release(identity_.channel);
    } else {
      core_->identities.keep(chunk(), identity_.channel);  // rule 4
    }
    {
      std::lock_guard lock(file_->mutex);
      record(status);
    }
    chunk_finished(core_, lane_, file_, run_.chunk);
  }

  // REQUIRES: mutex held.
  void record(const Status& status) {
    if (status.ok()) {
      core_->counters.write_bytes.fetch_add(run_.length, std::memory_order_relaxed);
      uint64_t chunk_begin = run_.chunk * file_->placement->chunk_size();
      file_->note_acked(chunk_begin + run_.offset + run_.length);
      return;
    }
    file_->made_holes = true;
    if (run_.buffered) file_->fail(status);
    for (auto& waiter : file_->waiters) {
      bool touches = waiter.first_chunk <= run_.chunk && run_.chunk <= waiter.last_chunk;
      if (waiter.through && touches && waiter.status.ok()) waiter.status = status;
    }
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  const std::shared_ptr<OpenFile> file_;
  const Run run_;
  uint32_t checksum_ = 0;
  UpdateIdentity identity_;
  int fresh_identities_ = 0;
};

}  // namespace

Status may_write(Handle& handle, uint64_t offset, size_t length) {
  if (handle.closed) return Status(EBADF, "client/write", "the handle is closed");
  if (!handle.writable()) return Status(EBADF, "client/write", "not open for writing");
  if (offset > kFileBytesMax || length > kFileBytesMax - offset) {
    return Status(EFBIG, "client/write", "offset + length is beyond 2^62 bytes");
  }
  if (std::exchange(handle.refuse_next, false) && !handle.error.ok()) return handle.error;
  return Status();
}

bool dirty_everywhere(const Core& core) {
  uint64_t all_max = kDirtyFilesMax * std::max<uint64_t>(core.options.write_back_bytes, 1u << 20);
  return core.counters.dirty_bytes.load(std::memory_order_relaxed) > all_max;
}

void arm_timer(const std::shared_ptr<Core>& core, Lane& lane,
               const std::shared_ptr<OpenFile>& file) {
  lane.run([core, &lane, file] {
    lane.after(kWriteBackDelayNs, [core, &lane, file] {
      {
        std::lock_guard lock(file->mutex);
        file->timer_armed = false;
      }
      place_appends(core, file, PlaceWhen::kWhole, [core, &lane, file] {
        {
          std::lock_guard lock(file->mutex);
          (void)file->dirty.want_all();
        }
        pump(core, lane, file);
      });
    });
  });
}

void wait_through(OpenFile& file, Lane& lane, uint64_t offset, size_t length,
                  Function<void(Result<size_t>)> done) {
  uint64_t first = offset / file.placement->chunk_size();
  uint64_t last = (offset + length - 1) / file.placement->chunk_size();
  uint64_t epoch = file.dirty.want(first, last);
  file.waiters.push_back({epoch, first, last, true, Status(), &lane,
                          [done = std::move(done), length](Status status) mutable {
                            if (!status.ok()) return done(status);
                            done(length);
                          }});
}

bool refused_for_good(const Status& status) { return status.code() == ENOSPC; }

void count_dirty(Core& core, OpenFile& file) {
  uint64_t dirty = file.dirty.bytes() + file.append_bytes;
  core.counters.dirty_bytes.fetch_add(dirty - file.counted_dirty, std::memory_order_relaxed);
  file.counted_dirty = dirty;
}

void pump(const std::shared_ptr<Core>& core, Lane& lane, const std::shared_ptr<OpenFile>& file) {
  while (true) {
    std::optional<Run> run;
    {
      std::lock_guard lock(file->mutex);
      run = file->dirty.take();
    }
    if (!run) return;
    std::make_shared<RunOp>(core, lane, file, std::move(*run))->send();
  }
}

// What a file under a quota has to do before it takes more bytes: nothing, tell the service what it
// has taken, or ask whether there is room again. Bytes over others cost nothing, but in a file with
// holes it is not known here whether there are any below. REQUIRES: mutex held.
enum class Growth { kFree, kSettle, kAsk };
Growth growth(const OpenFile& file, uint64_t end, size_t length) {
  bool fills_holes = file.has_holes || file.made_holes;
  if (!file.limited || (end <= file.size && !fills_holes)) return Growth::kFree;
  if (file.full) return Growth::kAsk;
  bool much = file.unsettled_bytes() + length > kGrowthUnsettledMax;
  return much && file.unsettled_bytes() > 0 ? Growth::kSettle : Growth::kFree;
}

void chunk_finished(const std::shared_ptr<Core>& core, Lane& lane,
                    const std::shared_ptr<OpenFile>& file, uint64_t chunk) {
  std::vector<Callback> callbacks;
  {
    std::lock_guard lock(file->mutex);
    file->dirty.finish(chunk);
    count_dirty(*core, *file);
    callbacks = take_due(*file);
  }
  pump(core, lane, file);
  run_all(std::move(callbacks));
}

void write_zeros(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                 uint64_t offset, uint64_t length, Function<void(Status)> done) {
  static const Buffer* zeros = [] {  // outlives every client
    auto* made = new Buffer(Buffer::allocate(kZeroBytes));
    std::memset(made->data(), 0, made->size());
    return made;
  }();
  FS3_CHECK(length > 0);
  Lane& lane = core->lane();
  {
    std::lock_guard lock(file->mutex);
    for (uint64_t at = 0; at < length; at += kZeroBytes) {
      size_t piece = std::min<uint64_t>(length - at, kZeroBytes);
      file->dirty.add(offset + at, zeros->slice(0, piece), true, false);
    }
    file->note_write(offset, length, wall_ns());
    count_dirty(*core, *file);
    wait_through(
        *file, lane, offset, length,
        [done = std::move(done)](Result<size_t> result) mutable { done(result.status()); });
  }
  pump(core, lane, file);
}

void wait_for_chunk(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                    uint64_t chunk, Function<void()> done) {
  Lane& lane = core->lane();
  {
    std::unique_lock lock(file->mutex);
    uint64_t epoch = file->dirty.want(chunk, chunk);
    if (!file->dirty.settled(epoch, chunk, chunk)) {
      file->waiters.push_back({epoch, chunk, chunk, false, Status(), &lane,
                               [done = std::move(done)](Status) mutable { done(); }});
      done = nullptr;
    }
  }
  pump(core, lane, file);
  if (done) done();
}

void ask_quota(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
               uint64_t end, size_t length, Function<void(Status)> then) {
  Growth needed;
  {
    std::lock_guard lock(file->mutex);
    needed = growth(*file, end, length);
  }
  if (needed == Growth::kFree) return then(Status());
  auto told = [file, then = std::move(then)](Status status) mutable {
    if (!status.ok()) return then(std::move(status));
    bool full;
    {
      std::lock_guard lock(file->mutex);
      full = file->full;
    }
    if (!full) return then(Status());
    then(Status(EDQUOT, "client/write", "the quota is used up; see: fs3 quota list"));
  };
  if (needed == Growth::kSettle) return settle_file(core, file, std::move(told));
  renew_capability(core, core->lane(), file, Right::kWrite, std::move(told));
}

namespace {

void write_placed(const std::shared_ptr<Core>& core, const FileHandle& handle, uint64_t offset,
                  const Buffer& data, bool through, Function<void(Result<size_t>)> done) {
  const auto& file = handle->file;
  Lane& lane = core->lane();
  size_t length = data.size();
  if (length == 0) return done(size_t{0});
  uint64_t file_max = core->options.write_back_bytes;
  through = through || file_max == 0;
  bool answered = false, arm = false;
  {
    std::unique_lock lock(file->mutex);
    if (Status status = may_write(*handle, offset, length); !status.ok()) {
      lock.unlock();
      return done(std::move(status));
    }
    file->dirty.add(offset, data, length >= kKeepBytesMin, !through);
    file->note_write(offset, length, wall_ns());
    count_dirty(*core, *file);
    bool too_many = dirty_everywhere(*core);
    bool full = file->dirty.bytes() > file_max || file->dirty.extents() > kExtentsMax || too_many;
    if (through) {
      wait_through(*file, lane, offset, length, std::move(done));
    } else if (full) {
      (void)file->dirty.want_all();
      file->room_waiters.push_back({too_many ? 0 : file_max, &lane,
                                    [done = std::move(done), length]() mutable { done(length); }});
    } else {
      answered = true;
      arm = !std::exchange(file->timer_armed, true);
    }
  }
  core->counters.writes.fetch_add(1, std::memory_order_relaxed);
  pump(core, lane, file);
  if (arm) arm_timer(core, lane, file);
  if (answered) done(length);
}

void flush_placed(const std::shared_ptr<Core>& core, const FileHandle& handle,
                  Function<void(Status)> done) {
  const auto& file = handle->file;
  Lane& lane = core->lane();
  auto report = [handle, done = std::move(done)](Status) mutable {
    Status error;
    {
      std::lock_guard lock(handle->file->mutex);
      std::swap(error, handle->error);
    }
    done(std::move(error));
  };
  {
    std::unique_lock lock(file->mutex);
    uint64_t epoch = file->dirty.want_all();
    if (file->dirty.settled(epoch)) {
      lock.unlock();
      return report(Status());
    }
    file->waiters.push_back({epoch, 0, UINT64_MAX, false, Status(), &lane, std::move(report)});
  }
  pump(core, lane, file);
}

void flush_all_placed(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                      Function<void(Status)> done) {
  Lane& lane = core->lane();
  {
    std::unique_lock lock(file->mutex);
    uint64_t epoch = file->dirty.want_all();
    if (file->dirty.settled(epoch)) {
      lock.unlock();
      return done(Status());
    }
    file->waiters.push_back({epoch, 0, UINT64_MAX, true, Status(), &lane, std::move(done)});
  }
  pump(core, lane, file);
}

}  // namespace

// What was appended before, at whichever handle, comes first.
void write_file(std::shared_ptr<Core> core, FileHandle handle, uint64_t offset, Buffer data,
                bool through, Function<void(Result<size_t>)> done) {
  bool appending, limited;
  {
    std::lock_guard lock(handle->file->mutex);
    appending = handle->file->appending();
    limited = handle->file->limited;
  }
  if (!appending && !limited)
    return write_placed(core, handle, offset, data, through, std::move(done));
  auto placed = [core, handle, offset, data = std::move(data), through,
                 done = std::move(done)]() mutable {
    // Offsets that may not be written at all are refused by write_placed.
    uint64_t end = offset + std::min<uint64_t>(data.size(), UINT64_MAX - offset);
    size_t length = data.size();
    auto allowed = [core, handle, offset, data = std::move(data), through,
                    done = std::move(done)](Status status) mutable {
      if (!status.ok()) return done(std::move(status));
      write_placed(core, handle, offset, data, through, std::move(done));
    };
    ask_quota(core, handle->file, end, length, std::move(allowed));
  };
  place_appends(core, handle->file, PlaceWhen::kNow, std::move(placed));
}

void flush_file(std::shared_ptr<Core> core, FileHandle handle, Function<void(Status)> done) {
  place_appends(core, handle->file, PlaceWhen::kNow,
                [core, handle, done = std::move(done)]() mutable {
                  flush_placed(core, handle, std::move(done));
                });
}

void flush_all(std::shared_ptr<Core> core, std::shared_ptr<OpenFile> file,
               Function<void(Status)> done) {
  place_appends(core, file, PlaceWhen::kNow, [core, file, done = std::move(done)]() mutable {
    flush_all_placed(core, file, std::move(done));
  });
}

}  // namespace fs3::client
