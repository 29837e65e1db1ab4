// SimEngine: the chunk engine of one disk for a simulator: on a simulated medium, without a thread,
// a file of the host or a clock.
//
// Whatever takes time is a step: a call of the block files, a batch of the committer, background
// work of RocksDB. A step happens when the driver calls run(); until then the power may go, or the
// process die. Everything between two steps is the engine's own code, run on the spot. So the order
// of steps, and the seed, decide all that happens: same calls, same outcome.
//
// Thread safety: none; one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "engine/chunk_engine.h"
#include "engine/sim_env.h"

namespace fs3::engine {

// What waits to happen.
class SimSteps final : public Executor {
 public:
  void submit(Function<void()> job) override;
  // Those submitted since the last call, in order.
  std::vector<uint64_t> take_new();
  Function<void()> take(uint64_t step);
  std::vector<uint64_t> waiting() const;
  void clear();

 private:
  uint64_t next_ = 1;
  std::map<uint64_t, Function<void()>> jobs_;
  std::vector<uint64_t> new_;
};

// A call that ended. Which fields count depends on the call.
struct SimOutcome {
  uint64_t call = 0;
  Status status;
  ChunkVersion version = 0;
  ChainVersion chain_version = 0;
  uint32_t length = 0;
  uint32_t checksum = 0;
  Buffer data;
};

class SimEngine {
 public:
  static constexpr TargetId kTarget = 1;

  SimEngine(uint64_t seed, uint64_t capacity_bytes, PatchLimits patches);
  ~SimEngine();

  // ---- lives
  // Opens the disk, which may be blank, and makes the target on it. Ends with all steps done.
  Status start();
  // The process dies: what is under way gets some steps further, or not. `power_loss`: what was not
  // synced is there in part.
  void stop(bool power_loss);
  bool running() const { return engine_ != nullptr; }
  // Another disk in its place: with what is durable on the other now, or blank. REQUIRES: this one
  // is stopped.
  void replace(const SimEngine* other);

  // ---- calls, ended by an outcome of that number. REQUIRES: running.
  void stage(uint64_t call, StageRequest request);
  void commit(uint64_t call, ChunkId chunk, uint64_t version, bool synced);
  void discard(uint64_t call, ChunkId chunk);
  void put_dedup_rows(uint64_t call, std::vector<DedupRow> rows, bool replace);
  void read(uint64_t call, ChunkId chunk, bool pending);

  // ---- time
  std::vector<uint64_t> take_new_steps() { return steps_.take_new(); }
  // One that is gone, since the process died, is ignored.
  void run(uint64_t step);
  void run_all();
  std::vector<SimOutcome> take_outcomes();

  // ---- what is there, seen from outside: none of it is a step
  Engine& engine() { return *engine_; }
  disk::SimMedium& medium() { return *medium_; }
  SimEnv& env() { return *env_; }
  // The bytes of the version would be read without an error.
  bool sound(ChunkId chunk, bool pending) const;
  // Some byte of the committed version rots where it lies. False: none lies in a block, all of it
  // is rows of metadata.
  bool rot(ChunkId chunk);

 private:
  Status open();
  // The engine goes on until only steps are left.
  void drain();
  bool intact(const StoredPiece& piece) const;

  std::mt19937_64 random_;
  const uint64_t capacity_bytes_;
  const PatchLimits patches_;
  SimSteps steps_;
  std::unique_ptr<disk::SimMedium> medium_;
  std::unique_ptr<SimEnv> env_;
  std::unique_ptr<Reactor> reactor_;
  std::unique_ptr<ChunkEngine> engine_;
  std::vector<SimOutcome> outcomes_;
};

}  // namespace fs3::engine
