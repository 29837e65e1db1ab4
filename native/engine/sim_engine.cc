#include "engine/sim_engine.h"

#include <utility>

#include "base/check.h"
#include "base/crc32c.h"

namespace fs3::engine {
namespace {

constexpr const char* kDirectory = "/disk";  // in the memory of the Env
constexpr ChainId kChain = 1;                // of the target; the simulator knows the real one

// A handle on what outlives it.
class Handle final : public Executor {
 public:
  explicit Handle(Executor& steps) : steps_(steps) {}
  void submit(Function<void()> job) override { steps_.submit(std::move(job)); }

 private:
  Executor& steps_;
};

}  // namespace

// ---- steps

void SimSteps::submit(Function<void()> job) {
  new_.push_back(next_);
  jobs_.emplace(next_++, std::move(job));
}

std::vector<uint64_t> SimSteps::take_new() { return std::exchange(new_, {}); }

Function<void()> SimSteps::take(uint64_t step) {
  auto found = jobs_.find(step);
  if (found == jobs_.end()) return nullptr;
  Function<void()> job = std::move(found->second);
  jobs_.erase(found);
  return job;
}

std::vector<uint64_t> SimSteps::waiting() const {
  std::vector<uint64_t> steps;
  for (const auto& [step, job] : jobs_) steps.push_back(step);
  return steps;
}

void SimSteps::clear() {
  jobs_.clear();
  new_.clear();
}

// ---- lives

SimEngine::SimEngine(uint64_t seed, uint64_t capacity_bytes, PatchLimits patches)
    : random_(seed), capacity_bytes_(capacity_bytes), patches_(patches) {
  replace(nullptr);
}

SimEngine::~SimEngine() {
  if (running()) stop(false);
}

void SimEngine::replace(const SimEngine* other) {
  FS3_CHECK(!running());
  auto medium = std::make_unique<disk::SimMedium>(random_(), capacity_bytes_);
  auto env = std::make_unique<SimEnv>(*medium, random_(), steps_);
  if (other != nullptr) {
    medium->copy_durable(*other->medium_);
    env->copy_durable(*other->env_);
  }
  env_ = std::move(env);
  medium_ = std::move(medium);
}

Status SimEngine::start() {
  FS3_CHECK(!running());
  auto reactor = Reactor::create("sim engine");
  if (!reactor.ok()) return reactor.status();
  reactor_ = std::move(*reactor);
  Status status = open();
  if (status.ok() && engine_->targets().empty()) status = engine_->create_target(kTarget, kChain);
  run_all();
  return status;
}

Status SimEngine::open() {
  Surroundings surroundings{disk::open_sim_disk(*reactor_, *medium_, &steps_), env_.get(), patches_,
                            std::make_unique<Handle>(steps_)};
  Options options{kDirectory, std::string(16, 'c'), 1, true};
  env_->CreateDirIfMissing(kDirectory);
  auto engine = ChunkEngine::open(*reactor_, std::move(options), std::move(surroundings));
  if (!engine.ok()) return engine.status();
  engine_.reset(static_cast<ChunkEngine*>(engine->release()));
  return Status();
}

void SimEngine::stop(bool power_loss) {
  while (random_() % 4 != 0) {
    auto waiting = steps_.waiting();
    if (waiting.empty()) break;
    run(waiting[random_() % waiting.size()]);
  }
  if (power_loss) medium_->power_off();
  env_->finish_background();
  steps_.clear();
  outcomes_.clear();
  engine_.reset();
  reactor_.reset();
  steps_.clear();
  if (!power_loss) return;
  env_->lose_unsynced();
  medium_->power_on();
}

// ---- calls

void SimEngine::stage(uint64_t call, StageRequest request) {
  request.target = kTarget;
  engine_->stage(std::move(request), [this, call](Result<StageResult> result) {
    SimOutcome outcome{.call = call, .status = result.status()};
    if (result.ok()) {
      outcome.length = result->chunk_length;
      outcome.checksum = result->checksum;
    }
    outcomes_.push_back(std::move(outcome));
  });
  drain();
}

void SimEngine::commit(uint64_t call, ChunkId chunk, uint64_t version, bool synced) {
  engine_->commit(kTarget, chunk, version, synced, [this, call](Status status) {
    outcomes_.push_back({.call = call, .status = std::move(status)});
  });
  drain();
}

void SimEngine::discard(uint64_t call, ChunkId chunk) {
  engine_->discard(kTarget, chunk, [this, call](Status status) {
    outcomes_.push_back({.call = call, .status = std::move(status)});
  });
  drain();
}

void SimEngine::put_dedup_rows(uint64_t call, std::vector<DedupRow> rows, bool replace) {
  engine_->put_dedup_rows(kTarget, std::move(rows), replace, [this, call](Status status) {
    outcomes_.push_back({.call = call, .status = std::move(status)});
  });
  drain();
}

void SimEngine::read(uint64_t call, ChunkId chunk, bool pending) {
  engine_->read(kTarget, chunk, 0, kChunkBytesMax, pending,
                [this, call](Result<ReadResult> result) {
                  SimOutcome outcome{.call = call, .status = result.status()};
                  if (result.ok()) {
                    outcome.version = result->version;
                    outcome.chain_version = result->chain_version;
                    outcome.length = result->chunk_length;
                    outcome.checksum = result->checksum;
                    outcome.data = std::move(result->data);
                  }
                  outcomes_.push_back(std::move(outcome));
                });
  drain();
}

// ---- time

void SimEngine::drain() {
  reactor_->stop();
  reactor_->run();
}

void SimEngine::run(uint64_t step) {
  Function<void()> job = steps_.take(step);
  if (!job) return;
  reactor_->post(std::move(job));
  drain();
}

void SimEngine::run_all() {
  drain();
  for (auto waiting = steps_.waiting(); !waiting.empty(); waiting = steps_.waiting()) {
    for (uint64_t step : waiting) run(step);
  }
  steps_.take_new();
}

std::vector<SimOutcome> SimEngine::take_outcomes() { return std::exchange(outcomes_, {}); }

// ---- from outside

bool SimEngine::intact(const StoredPiece& piece) const {
  std::string bytes = medium_->peek(piece.file, piece.offset, piece.size);
  return crc32c(0, bytes.data(), bytes.size()) == piece.checksum;
}

bool SimEngine::sound(ChunkId chunk, bool pending) const {
  auto state = engine_->get(kTarget, chunk);
  if (!state) return true;
  if (pending ? state->pending_damaged : state->damaged) return false;
  for (const StoredPiece& piece : engine_->stored_pieces(kTarget, chunk, pending)) {
    if (!intact(piece)) return false;
  }
  return true;
}

bool SimEngine::rot(ChunkId chunk) {
  auto pieces = engine_->stored_pieces(kTarget, chunk, false);
  if (pieces.empty()) return false;
  const StoredPiece& piece = pieces[random_() % pieces.size()];
  if (intact(piece)) medium_->corrupt(piece.file, piece.offset + random_() % piece.size, 1);
  return true;
}

}  // namespace fs3::engine
