#include "client/writer.h"

#include <time.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/crc32c.h"
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
// A file under a quota: how much longer than the service knows it may be. With the number of files
// that a client writes at the same time, what it may go beyond the limit.
constexpr uint64_t kGrowthUnsettledMax = 64u << 20;
constexpr uint64_t kFileBytesMax = 1ull << 62;
constexpr int kFreshIdentitiesMax = 3;

int64_t wall_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000ll + now.tv_nsec;
}

struct Callback {
  Lane* lane;
  Function<void()> call;
};

void run_all(std::vector<Callback> callbacks) {
  for (auto& [lane, call] : callbacks) lane->run(std::move(call));
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
    std::vector<Callback> callbacks;
    if (status.ok() || refused_for_good(status)) {
      core_->identities.release(identity_.channel);
    } else {
      core_->identities.keep(chunk(), identity_.channel);  // rule 4
    }
    {
      std::lock_guard lock(file_->mutex);
      record(status);
      file_->dirty.finish(run_.chunk);
      count_dirty(*core_, *file_);
      callbacks = due();
    }
    pump(core_, lane_, file_);
    run_all(std::move(callbacks));
  }

  // REQUIRES: mutex held (this and the next).
  void record(const Status& status) {
    if (status.ok()) {
      core_->counters.write_bytes.fetch_add(run_.length, std::memory_order_relaxed);
      uint64_t chunk_begin = run_.chunk * file_->placement->chunk_size();
      file_->note_acked(chunk_begin + run_.offset + run_.length);
      return;
    }
    if (run_.buffered) file_->fail(status);
    for (auto& waiter : file_->waiters) {
      bool touches = waiter.first_chunk <= run_.chunk && run_.chunk <= waiter.last_chunk;
      if (waiter.through && touches && waiter.status.ok()) waiter.status = status;
    }
  }

  std::vector<Callback> due() {
    std::vector<Callback> callbacks;
    std::erase_if(file_->waiters, [&](OpenFile::Waiter& waiter) {
      bool all = waiter.last_chunk == UINT64_MAX;
      bool settled =
          all ? file_->dirty.settled(waiter.epoch)
              : file_->dirty.settled(waiter.epoch, waiter.first_chunk, waiter.last_chunk);
      if (!settled) return false;
      callbacks.push_back({waiter.lane, [done = std::move(waiter.done),
                                         status = std::move(waiter.status)]() mutable {
                             done(std::move(status));
                           }});
      return true;
    });
    std::erase_if(file_->room_waiters, [&](OpenFile::RoomWaiter& waiter) {
      if (file_->dirty.bytes() > waiter.bytes_max) return false;
      callbacks.push_back({waiter.lane, std::move(waiter.done)});
      return true;
    });
    return callbacks;
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  const std::shared_ptr<OpenFile> file_;
  const Run run_;
  uint32_t checksum_ = 0;
  UpdateIdentity identity_;
  int fresh_identities_ = 0;
};

// REQUIRES: mutex held.
Status check_write(const Handle& handle, uint64_t offset, size_t length) {
  if (handle.closed) return Status(EBADF, "client/write", "the handle is closed");
  if (!handle.writable()) return Status(EBADF, "client/write", "not open for writing");
  if (offset > kFileBytesMax || length > kFileBytesMax - offset) {
    return Status(EFBIG, "client/write", "offset + length is beyond 2^62 bytes");
  }
  return Status();
}

void arm_timer(const std::shared_ptr<Core>& core, Lane& lane,
               const std::shared_ptr<OpenFile>& file) {
  lane.run([core, &lane, file] {
    lane.after(kWriteBackDelayNs, [core, &lane, file] {
      {
        std::lock_guard lock(file->mutex);
        file->timer_armed = false;
        (void)file->dirty.want_all();
      }
      pump(core, lane, file);
    });
  });
}

// Waits for the chains. `done` gets the first error of the chunks it touched.
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

}  // namespace

bool refused_for_good(const Status& status) { return status.code() == ENOSPC; }

void count_dirty(Core& core, OpenFile& file) {
  core.counters.dirty_bytes.fetch_add(file.dirty.bytes() - file.counted_dirty,
                                      std::memory_order_relaxed);
  file.counted_dirty = file.dirty.bytes();
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

// What a file under a quota has to do before it grows to `end`: nothing, tell the service how far
// it is, or ask whether there is room again. REQUIRES: mutex held.
enum class Growth { kFree, kSettle, kAsk };
Growth growth(const OpenFile& file, uint64_t end) {
  if (!file.limited || end <= file.size) return Growth::kFree;
  if (file.full) return Growth::kAsk;
  return end > file.attr_size + kGrowthUnsettledMax ? Growth::kSettle : Growth::kFree;
}

void write_within_quota(std::shared_ptr<Core> core, FileHandle handle, uint64_t offset, Buffer data,
                        WriteAt at, bool asked, Function<void(Result<size_t>)> done) {
  const auto& file = handle->file;
  Lane& lane = core->lane();
  size_t length = data.size();
  if (length == 0) return done(size_t{0});
  uint64_t file_max = core->options.write_back_bytes;
  bool through = handle->through() || file_max == 0 || at == WriteAt::kThrough;
  bool answered = false, arm = false;
  {
    std::unique_lock lock(file->mutex);
    if (handle->appends() && at == WriteAt::kAsOpened) offset = std::max(offset, file->size);
    if (Status status = check_write(*handle, offset, length); !status.ok()) {
      lock.unlock();
      return done(std::move(status));
    }
    if (Growth needed = growth(*file, offset + length); needed != Growth::kFree) {
      if (asked && file->full) {
        lock.unlock();
        return done(Status(EDQUOT, "client/write", "the quota is used up; see: fs3 quota list"));
      }
      if (!asked) {
        lock.unlock();
        auto again = [core, handle, offset, data, at, done = std::move(done)](Status told) mutable {
          if (!told.ok()) return done(std::move(told));
          write_within_quota(core, handle, offset, std::move(data), at, true, std::move(done));
        };
        if (needed == Growth::kSettle) return settle_file(core, file, std::move(again));
        return renew_capability(core, lane, file, Right::kWrite, std::move(again));
      }
    }
    if (std::exchange(handle->refuse_next, false) && !handle->error.ok()) {
      Status status = handle->error;
      lock.unlock();
      return done(std::move(status));
    }
    file->dirty.add(offset, data, length >= kKeepBytesMin, !through);
    file->note_write(offset + length, wall_ns());
    count_dirty(*core, *file);
    uint64_t all_max = kDirtyFilesMax * std::max<uint64_t>(file_max, 1u << 20);
    bool too_many = core->counters.dirty_bytes.load(std::memory_order_relaxed) > all_max;
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

void write_file(std::shared_ptr<Core> core, FileHandle handle, uint64_t offset, Buffer data,
                WriteAt at, Function<void(Result<size_t>)> done) {
  write_within_quota(std::move(core), std::move(handle), offset, std::move(data), at, false,
                     std::move(done));
}

void flush_file(std::shared_ptr<Core> core, FileHandle handle, Function<void(Status)> done) {
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

void flush_all(std::shared_ptr<Core> core, std::shared_ptr<OpenFile> file,
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

}  // namespace fs3::client
