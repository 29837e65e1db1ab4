// Scrubber: reads every committed version of a disk once in a period, so that bytes that rotted are
// found while other replicas still have them.
//
// A pass walks targets and chunks in order, one read in flight, at a rate that ends it in an eighth
// of the period - a pass that restarts of the server begin anew still ends - but never above the
// bound. What it finds goes to `on_damage`; the repair is the replica's business.
// Thread safety: the reactor's thread. The engine outlives it; callbacks after its end do nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/function.h"
#include "engine/engine.h"

namespace fs3::storage {

struct ScrubOptions {
  int64_t period_ns = 14ll * 86'400 * 1'000'000'000;  // 0: never
  uint64_t bytes_per_s = 32u << 20;                   // at most
};

struct ScrubStatistics {
  uint64_t passes = 0;  // that ended
  uint64_t chunks = 0, bytes = 0;
  uint64_t damaged = 0;       // chunks that it found
  int64_t pass_ended_ns = 0;  // the last one; 0 before the first
};

class Scrubber {
 public:
  Scrubber(engine::Engine& engine, ScrubOptions options,
           Function<void(TargetId, ChunkId, Status)> on_damage);

  // Every 50 ms or so.
  void tick(int64_t now_ns);
  const ScrubStatistics& statistics() const { return statistics_; }
  bool reading() const { return reading_; }

 private:
  void begin_pass();
  void end_pass();
  void go_on();
  bool next_chunk();
  void read();
  void read_done(Result<engine::ReadResult> result);

  engine::Engine& engine_;
  const ScrubOptions options_;
  Function<void(TargetId, ChunkId, Status)> on_damage_;
  ScrubStatistics statistics_;

  int64_t now_ns_ = 0;
  int64_t pass_due_ns_ = 0;
  uint64_t rate_ = 0;   // of this pass, bytes per second
  int64_t budget_ = 0;  // bytes
  bool passing_ = false;
  bool reading_ = false;
  std::vector<engine::TargetInfo> targets_;  // that are left of this pass, in reverse
  std::optional<ChunkId> after_;
  std::vector<engine::ChunkState> page_;  // in reverse
  std::optional<engine::ChunkState> chunk_;
  uint32_t offset_ = 0;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
};

}  // namespace fs3::storage
