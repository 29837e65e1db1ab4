#include "client/append.h"

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/check.h"
#include "client/core.h"
#include "client/meta.h"
#include "client/writer.h"
#include "meta.pb.h"

namespace fs3::client {

namespace {

// For the second piece of a write(2): its writer only has to be scheduled.
constexpr int64_t kPieceWaitNs = 1'000'000'000;
constexpr int64_t kPieceLookNs = 5'000'000;
// Bounds what one reservation leaves empty when its client dies.
constexpr size_t kBatchAppendsMax = 4096;
constexpr size_t kKeepBytesMin = 64u << 10;

struct Batch {
  std::deque<PendingAppend> appends;
  uint64_t bytes = 0;

  // One that is repeated is a batch of its own (rule 4 of the header). REQUIRES: mutex held.
  void take_from(std::deque<PendingAppend>& waiting) {
    bool alone;
    do {
      appends.push_back(std::move(waiting.front()));
      waiting.pop_front();
      bytes += appends.back().data.size();
      alone = appends.back().name.repeated;
    } while (!alone && !waiting.empty() && !waiting.front().name.repeated);
  }
};

void try_to_place(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                  PlaceWhen when);

// REQUIRES: mutex held.
bool waits_for_piece(const OpenFile& file) {
  const PendingAppend& last = file.appends.back();
  return last.more_follows && now_ns() - last.since_ns < kPieceWaitNs;
}

// The first session there is, also one that is being closed: its flush is what this is for.
// REQUIRES: mutex held.
std::string any_session(const OpenFile& file) {
  for (const Handle* handle : file.handles) {
    if (!handle->session.empty()) return handle->session;
  }
  return {};
}

// The batch has the place [offset, ...). What its appends waited for comes out by `after`.
// REQUIRES: mutex held.
void put_in_place(const std::shared_ptr<OpenFile>& file, Batch& batch, uint64_t offset,
                  std::vector<Function<void()>>& after) {
  // What lies in front is somebody else's, not a hole.
  file->size = std::max(file->size, offset);
  for (PendingAppend& append : batch.appends) {
    uint64_t length = append.data.size();
    file->dirty.add(offset, append.data, append.keep, append.buffered);
    file->note_write(offset, length, append.wall_ns);
    if (append.done) {
      auto placed = [done = std::move(append.done), offset](Result<size_t> written) mutable {
        if (!written.ok()) return done(written.status());
        done(Appended{*written, offset});
      };
      if (append.buffered) {
        after.push_back([placed = std::move(placed), length]() mutable { placed(length); });
      } else {
        wait_through(*file, *append.lane, offset, length, std::move(placed));
      }
    }
    offset += length;
  }
}

// REQUIRES: mutex held.
void fail_batch(OpenFile& file, Batch& batch, const Status& status,
                std::vector<Function<void()>>& after) {
  for (PendingAppend& append : batch.appends) {
    if (!append.done) {
      file.fail(status);
    } else {
      after.push_back([done = std::move(append.done), status]() mutable { done(status); });
    }
  }
}

void placed(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file, Batch& batch,
            const Result<std::string>& reply) {
  proto::meta::AppendReply parsed;
  Status status = reply.status();
  bool decodes = !status.ok() || parsed.ParseFromString(reply.value());
  if (!decodes || (status.ok() && parsed.end() < batch.bytes)) {
    status = Status(EIO, "client/append", "the reply of the metadata service does not decode");
  }
  std::vector<Function<void()>> after;
  Lane& lane = core->lane();
  {
    std::lock_guard lock(file->mutex);
    file->placing = false;
    file->append_bytes -= batch.bytes;
    file->appends_placed += batch.appends.size();
    if (status.ok()) {
      put_in_place(file, batch, parsed.end() - batch.bytes, after);
    } else {
      fail_batch(*file, batch, status, after);
    }
    count_dirty(*core, *file);
    std::erase_if(file->place_waiters, [&](OpenFile::PlaceWaiter& waiter) {
      if (waiter.appends > file->appends_placed) return false;
      after.push_back([lane = waiter.lane, done = std::move(waiter.done)]() mutable {
        lane->run(std::move(done));
      });
      return true;
    });
  }
  pump(core, lane, file);
  for (auto& each : after) each();
  try_to_place(core, file, PlaceWhen::kWhole);
}

// Sends the reservation for what waits, when somebody wants it and none is on its way.
void try_to_place(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                  PlaceWhen when) {
  auto batch = std::make_shared<Batch>();
  proto::meta::AppendRequest request;
  Lane& lane = core->lane();
  {
    std::lock_guard lock(file->mutex);
    if (file->placing || file->appends.empty() || file->place_waiters.empty()) return;
    if (when == PlaceWhen::kWhole && waits_for_piece(*file)) {
      if (std::exchange(file->place_timer_armed, true)) return;
      lane.run([core, &lane, file] {
        lane.after(kPieceLookNs, [core, file] {
          {
            std::lock_guard again(file->mutex);
            file->place_timer_armed = false;
          }
          try_to_place(core, file, PlaceWhen::kWhole);
        });
      });
      return;
    }
    file->placing = true;
    batch->take_from(file->appends);
    FS3_CHECK(batch->bytes <= file->append_bytes);
    request.set_inode(file->inode);
    request.set_session(any_session(*file));
    request.set_length(batch->bytes);
    if (file->write_generation != file->settled_generation || !file->dirty.empty()) {
      request.set_at_least(file->written_end);
    }
  }
  std::string body =
      with_header(batch->appends.back().name.call, process_caller(), 0, request.SerializeAsString())
          .value();
  send_meta_call(
      core, lane, proto::meta::APPEND, std::move(body), now_ns() + core->options.meta_deadline_ns,
      [core, file, batch](const Result<std::string>& reply) { placed(core, file, *batch, reply); });
}

// What the quota allows. REQUIRES: data is not empty.
void accept(const std::shared_ptr<Core>& core, const FileHandle& handle, Buffer data,
            AppendMode mode, Client::AppendName name, Function<void(Result<Appended>)> done) {
  const auto& file = handle->file;
  Lane& lane = core->lane();
  size_t length = data.size();
  uint64_t file_max = core->options.write_back_bytes;
  bool more = mode == AppendMode::kMoreFollows;
  // The rest of the same write(2) comes after this answer, and waits for both.
  bool through = !more && (handle->through() || file_max == 0);
  bool arm = false, now;
  {
    std::unique_lock lock(file->mutex);
    Status status = may_write(*handle, file->size + file->append_bytes, length);
    if (!status.ok()) {
      lock.unlock();
      return done(std::move(status));
    }
    bool keep = length >= kKeepBytesMin;
    if (!keep) data = Buffer::copy_of(data.data(), length);
    bool repeated = name.repeated;
    file->appends.push_back({.data = std::move(data),
                             .keep = true,
                             .buffered = !through,
                             .more_follows = more,
                             .since_ns = now_ns(),
                             .wall_ns = wall_ns(),
                             .lane = &lane,
                             .name = std::move(name)});
    file->append_bytes += length;
    ++file->appends_made;
    file->mtime_ns = file->appends.back().wall_ns;
    count_dirty(*core, *file);
    bool full = file->dirty.bytes() + file->append_bytes > file_max ||
                file->appends.size() >= kBatchAppendsMax || dirty_everywhere(*core);
    now = through || repeated || mode == AppendMode::kPlaced || (full && !more);
    if (now) {
      file->appends.back().done = std::move(done);
      file->place_waiters.push_back({file->appends_made, &lane, [] {}});
    } else {
      arm = !std::exchange(file->timer_armed, true);
    }
  }
  core->counters.writes.fetch_add(1, std::memory_order_relaxed);
  if (now) return try_to_place(core, file, PlaceWhen::kWhole);
  if (arm) arm_timer(core, lane, file);
  done(Appended{length, Appended::kUnplaced});
}

// The piece before it was accepted, and no other append must come between.
bool continues_piece(OpenFile& file) {
  std::lock_guard lock(file.mutex);
  return !file.appends.empty() && file.appends.back().more_follows;
}

}  // namespace

void append_file(const std::shared_ptr<Core>& core, const FileHandle& handle, Buffer data,
                 AppendMode mode, Client::AppendName name, Function<void(Result<Appended>)> done) {
  size_t length = data.size();
  if (length == 0) return done(Appended{0, Appended::kUnplaced});
  auto allowed = [core, handle, mode, data = std::move(data), name = std::move(name),
                  done = std::move(done)](Status status) mutable {
    if (!status.ok()) return done(std::move(status));
    accept(core, handle, std::move(data), mode, std::move(name), std::move(done));
  };
  if (continues_piece(*handle->file)) return allowed(Status());
  ask_quota(core, handle->file, UINT64_MAX, length, std::move(allowed));
}

void place_appends(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
                   PlaceWhen when, Function<void()> done) {
  {
    std::lock_guard lock(file->mutex);
    if (file->appends_placed < file->appends_made) {
      file->place_waiters.push_back({file->appends_made, &core->lane(), std::move(done)});
      done = nullptr;
    }
  }
  if (done) return done();
  try_to_place(core, file, when);
}

}  // namespace fs3::client
