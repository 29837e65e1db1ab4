#include "client/holes.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/check.h"
#include "client/append.h"
#include "client/core.h"
#include "client/reader.h"

namespace fs3::client {

namespace {

constexpr uint32_t kRunsMax = 1024;

// Right::kRead where the file has it: a handle that only writes may seek as well.
std::shared_ptr<Credential> any_credential(OpenFile& file) {
  std::lock_guard lock(file.mutex);
  bool reads = !file.tokens[static_cast<int>(Right::kRead)].bytes.empty();
  return file.credential(reads ? Right::kRead : Right::kWrite);
}

// One question to every chain that chunks first..last lie on, and one answer. Lane thread only.
class Query : public std::enable_shared_from_this<Query> {
 public:
  Query(std::shared_ptr<Core> core, Lane& lane, std::shared_ptr<OpenFile> file, uint32_t runs_max,
        Function<void(Result<ChunkMap>)> done)
      : core_(std::move(core)),
        lane_(lane),
        file_(std::move(file)),
        runs_max_(runs_max),
        map_(file_->placement->stripe(), file_->placement->chunk_size()),
        done_(std::move(done)) {}

  void start(uint64_t first, uint64_t last) {
    uint64_t stripe = file_->placement->stripe();
    uint64_t positions = std::min(stripe, last - first + 1);
    open_ = positions;
    ChunkJob job{core_, &lane_, file_->inode, file_->placement, any_credential(*file_)};
    for (uint64_t i = 0; i < positions; ++i) {
      query_runs(job, first + i, runs_max_, [self = shared_from_this()](Result<ChunkRunPage> page) {
        self->answered(std::move(page));
      });
    }
  }

 private:
  void answered(Result<ChunkRunPage> page) {
    if (page.ok()) {
      map_.add(std::move(page).value());
    } else if (error_.ok()) {
      error_ = page.status();
    }
    FS3_CHECK(open_ > 0);
    if (--open_ > 0) return;
    auto done = std::move(done_);
    if (!error_.ok()) return done(error_);
    done(std::move(map_));
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  const std::shared_ptr<OpenFile> file_;
  const uint32_t runs_max_;
  ChunkMap map_;
  uint64_t open_ = 0;
  Status error_;
  Function<void(Result<ChunkMap>)> done_;
};

// Walks from `offset` to the end of the first data, asking again where an answer was cut.
class NextData : public std::enable_shared_from_this<NextData> {
 public:
  NextData(std::shared_ptr<Core> core, std::shared_ptr<OpenFile> file, uint64_t offset,
           uint64_t end, bool begin_only, Function<void(Result<Gap>)> done)
      : core_(std::move(core)),
        lane_(core_->lane()),
        file_(std::move(file)),
        chunk_size_(file_->placement->chunk_size()),
        at_(offset),
        end_(end),
        begin_only_(begin_only),
        done_(std::move(done)) {}

  void start() {
    {
      std::lock_guard lock(file_->mutex);
      dirty_ = file_->dirty.ranges(at_, end_);
    }
    ask();
  }

 private:
  void ask() {
    if (at_ >= end_) return finish();
    query_chunks(core_, lane_, file_, at_ / chunk_size_, (end_ - 1) / chunk_size_,
                 begin_only_ ? 2 : kRunsMax, [self = shared_from_this()](Result<ChunkMap> map) {
                   if (!map.ok()) return self->fail(map.status());
                   self->walk(*map);
                 });
  }

  // Moves at_ forward through what is known; finishes, or asks for what comes after it.
  void walk(const ChunkMap& map) {
    uint64_t known = map.through() > end_ / chunk_size_ ? end_ : map.through() * chunk_size_;
    while (at_ < end_) {
      Gap stored = stored_at(map, at_, known);
      Gap mine = dirty_at(at_);
      Gap first =
          mine.length > 0 && (stored.length == 0 || mine.offset <= stored.offset) ? mine : stored;
      bool begins_later = first.length == 0 || first.offset > at_;
      if (found_.length > 0 && begins_later && at_ < known) return finish();
      if (first.length == 0 || first.offset >= known) {
        // A hole up to where the answer was cut.
        if (known >= end_) return finish();
        at_ = known;
        return ask();
      }
      if (found_.length == 0) found_ = {first.offset, 0};
      at_ = std::min(end_, first.offset + first.length);
      found_.length = at_ - found_.offset;
      if (begin_only_) return finish();
      if (at_ >= known && known < end_) return ask();
    }
    finish();
  }

  // The first stored bytes from `offset` on, within [offset, known).
  Gap stored_at(const ChunkMap& map, uint64_t offset, uint64_t known) const {
    uint64_t index = offset / chunk_size_;
    auto chunk = map.next(index);
    if (chunk && chunk->index == index && offset % chunk_size_ >= chunk->length) {
      chunk = map.next(index + 1);
    }
    if (!chunk || chunk->index * chunk_size_ >= known) return {};
    uint64_t begin = std::max(offset, chunk->index * chunk_size_);
    uint64_t whole_end = map.end_of_whole(chunk->index);
    uint64_t end = whole_end > chunk->index ? whole_end * chunk_size_
                                            : chunk->index * chunk_size_ + chunk->length;
    return {begin, std::min(end, known) - begin};
  }

  Gap dirty_at(uint64_t offset) const {
    for (const Gap& range : dirty_) {
      if (range.offset + range.length <= offset) continue;
      uint64_t begin = std::max(offset, range.offset);
      return {begin, range.offset + range.length - begin};
    }
    return {};
  }

  void finish() {
    auto done = std::move(done_);
    done(found_);
  }
  void fail(const Status& status) {
    auto done = std::move(done_);
    done(status);
  }

  const std::shared_ptr<Core> core_;
  Lane& lane_;
  const std::shared_ptr<OpenFile> file_;
  const uint64_t chunk_size_;
  uint64_t at_;  // everything in front of it is known
  const uint64_t end_;
  const bool begin_only_;
  std::vector<Gap> dirty_;
  Gap found_;
  Function<void(Result<Gap>)> done_;
};

}  // namespace

void ChunkMap::add(ChunkRunPage page) {
  through_ = std::min(through_, page.through);
  if (!page.runs.empty()) positions_.push_back(std::move(page.runs));
}

std::optional<ChunkMap::Found> ChunkMap::next(uint64_t index) const {
  std::optional<Found> first;
  for (const auto& runs : positions_) {
    // The run that holds the index, or the first one behind it.
    auto after = std::upper_bound(runs.begin(), runs.end(), index,
                                  [](uint64_t at, const ChunkRun& run) { return at < run.index; });
    Found found;
    if (after != runs.begin()) {
      const ChunkRun& run = *std::prev(after);
      uint64_t step = (index - run.index + stripe_ - 1) / stripe_;
      if (step < run.count) {
        found = {run.index + step * stripe_, step + 1 == run.count ? run.last_length : chunk_size_};
      }
    }
    if (found.length == 0 && after != runs.end()) {
      found = {after->index, after->count == 1 ? after->last_length : chunk_size_};
    }
    if (found.length > 0 && (!first || found.index < first->index)) first = found;
  }
  if (first && first->index >= through_) return std::nullopt;
  return first;
}

uint64_t ChunkMap::end_of_whole(uint64_t index) const {
  // Every position on its own: where its next chunks stop being whole. A position without runs
  // stops at once.
  uint64_t end = through_;
  for (uint64_t at = index; at < index + stripe_ && at < end; ++at) {
    uint64_t stop = at;
    for (const auto& runs : positions_) {
      if (runs.front().index % stripe_ != at % stripe_) continue;
      auto after =
          std::upper_bound(runs.begin(), runs.end(), at,
                           [](uint64_t one, const ChunkRun& run) { return one < run.index; });
      if (after == runs.begin()) break;
      const ChunkRun& run = *std::prev(after);
      if ((at - run.index) / stripe_ >= run.count) break;
      uint64_t whole = run.last_length == chunk_size_ ? run.count : run.count - 1;
      stop = std::max(at, run.index + whole * stripe_);
      break;
    }
    end = std::min(end, stop);
  }
  return end;
}

void query_chunks(const std::shared_ptr<Core>& core, Lane& lane,
                  const std::shared_ptr<OpenFile>& file, uint64_t first, uint64_t last,
                  uint32_t runs_max, Function<void(Result<ChunkMap>)> done) {
  auto query = std::make_shared<Query>(core, lane, file, runs_max, std::move(done));
  lane.run([query, first, last] { query->start(first, last); });
}

void next_data(const std::shared_ptr<Core>& core, const std::shared_ptr<OpenFile>& file,
               uint64_t offset, uint64_t end, bool begin_only, Function<void(Result<Gap>)> done) {
  FS3_CHECK(offset <= end);
  std::make_shared<NextData>(core, file, offset, end, begin_only, std::move(done))->start();
}

void seek_file(const std::shared_ptr<Core>& core, const FileHandle& handle, uint64_t offset,
               SeekFor what, Function<void(Result<uint64_t>)> done) {
  auto file = handle->file;
  auto sized = [core, file, offset, what, done = std::move(done)](Result<uint64_t> size) mutable {
    if (!size.ok()) return done(size.status());
    if (offset >= *size) return done(Status(ENXIO, "client/seek", "at or beyond the end of file"));
    auto found = [offset, end = *size, what, done = std::move(done)](Result<Gap> data) mutable {
      if (!data.ok()) return done(data.status());
      if (what == SeekFor::kData) {
        if (data->length == 0) return done(Status(ENXIO, "client/seek", "only a hole follows"));
        return done(data->offset);
      }
      // The end of the file counts as a hole.
      bool in_hole = data->length == 0 || data->offset > offset;
      done(in_hole ? offset : std::min(end, data->offset + data->length));
    };
    next_data(core, file, offset, *size, what == SeekFor::kData, std::move(found));
  };
  place_appends(core, file, PlaceWhen::kNow, [core, file, sized = std::move(sized)]() mutable {
    fresh_size(core, file, std::move(sized));
  });
}

}  // namespace fs3::client
