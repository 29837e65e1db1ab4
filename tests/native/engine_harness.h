// An engine on a reactor with blocking calls, on a real directory or on a simulated disk (whose
// metadata is in a real directory all the same).
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <thread>

#include "base/crc32c.h"
#include "disk/posix_disk.h"
#include "disk/sim_disk.h"
#include "engine/chunk_engine.h"
#include "engine/engine.h"
#include "reactor_harness.h"

namespace fs3::test {

using engine::ChunkState;
using engine::DedupRow;
using engine::ReadResult;
using engine::StageRequest;
using engine::StageResult;

inline Buffer buffer_of(const std::string& bytes) {
  Buffer buffer = Buffer::allocate(std::max<size_t>(bytes.size(), 1));
  buffer.resize(bytes.size());
  std::memcpy(buffer.data(), bytes.data(), bytes.size());
  return buffer;
}

inline std::string string_of(const Buffer& buffer) {
  return std::string(reinterpret_cast<const char*>(buffer.data()), buffer.size());
}

// Bytes that differ from place to place and from seed to seed.
inline std::string pattern(size_t size, uint32_t seed) {
  std::string bytes(size, '\0');
  uint32_t state = seed * 2654435761u + 1;
  for (char& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

// Limits that a test reaches: the folder runs all the time.
constexpr engine::PatchLimits kTinyPatches{
    .row_bytes = 16 << 10, .rows = 6, .fold_bytes = 4 << 10, .bytes_max = 96 << 10};

constexpr TargetId kTarget = 11;
inline const std::string kCluster = "0123456789abcdef";

class EngineWorld {
 public:
  explicit EngineWorld(disk::SimMedium* medium = nullptr) : medium_(medium) {
    options_.directory = directory_.path() + "/disk";
    options_.cluster_id = kCluster;
    options_.node_id = 2;
    options_.create = true;
  }
  ~EngineWorld() { close(); }

  Status open() {
    auto engine = harness_.on([&]() -> Result<std::unique_ptr<engine::Engine>> {
      engine::Surroundings surroundings{nullptr, env_, patches_};
      if (medium_ == nullptr) {
        auto disk = disk::open_posix_disk(
            harness_.reactor(), {.directory = options_.directory, .create = options_.create});
        if (!disk.ok()) return disk.status();
        surroundings.disk = std::move(*disk);
      } else {
        std::filesystem::create_directory(options_.directory);
        surroundings.disk = disk::open_sim_disk(harness_.reactor(), *medium_);
      }
      return engine::ChunkEngine::open(harness_.reactor(), options_, std::move(surroundings));
    });
    if (!engine.ok()) return engine.status();
    engine_ = std::move(*engine);
    return Status();
  }
  void close() {
    harness_.on([&] { engine_.reset(); });
  }
  // Opens and makes kTarget if it is not there.
  void start() {
    Status status = open();
    ASSERT_TRUE(status.ok()) << status.to_string();
    harness_.on([&] {
      if (engine_->targets().empty()) {
        Status made = engine_->create_target(kTarget, 5);
        EXPECT_TRUE(made.ok()) << made.to_string();
      }
    });
  }

  StageRequest request(UpdateKind kind, ChunkId chunk, uint64_t version, uint32_t offset,
                       const std::string& data) {
    StageRequest request;
    request.target = kTarget;
    request.chunk = chunk;
    request.version = version;
    request.chain_version = 3;
    request.kind = kind;
    request.offset = offset;
    request.length = static_cast<uint32_t>(data.size());
    request.data = buffer_of(data);
    request.checksum = crc32c(0, data.data(), data.size());
    request.identity.client_id[0] = 1;
    request.identity.channel = 7;
    request.identity.sequence = ++sequence_;
    return request;
  }
  Result<StageResult> stage(StageRequest request) {
    return harness_.wait<Result<StageResult>>(
        [&](auto done) { engine_->stage(std::move(request), std::move(done)); });
  }
  Status commit(ChunkId chunk, uint64_t version, bool synced = true) {
    return harness_.wait<Status>(
        [&](auto done) { engine_->commit(kTarget, chunk, version, synced, std::move(done)); });
  }
  // Stages and commits the version after the committed one.
  Result<StageResult> update(UpdateKind kind, ChunkId chunk, uint32_t offset,
                             const std::string& data, uint32_t length = 0) {
    StageRequest staged = request(kind, chunk, version(chunk) + 1, offset, data);
    if (length != 0) staged.length = length;
    staged.commit = true;
    return stage(std::move(staged));
  }
  Result<StageResult> write(ChunkId chunk, uint32_t offset, const std::string& data) {
    return update(UpdateKind::kWrite, chunk, offset, data);
  }
  Result<StageResult> truncate(ChunkId chunk, uint32_t length) {
    StageRequest staged = request(UpdateKind::kTruncate, chunk, version(chunk) + 1, 0, "");
    staged.length = length;
    staged.commit = true;
    return stage(std::move(staged));
  }
  Status remove(ChunkId chunk) { return update(UpdateKind::kRemove, chunk, 0, "").status(); }
  Status discard(ChunkId chunk) {
    return harness_.wait<Status>(
        [&](auto done) { engine_->discard(kTarget, chunk, std::move(done)); });
  }
  Status drop(ChunkId chunk) {
    return harness_.wait<Status>(
        [&](auto done) { engine_->drop(kTarget, chunk, std::move(done)); });
  }
  Result<ReadResult> read(ChunkId chunk, uint32_t offset, uint32_t length, bool pending = false) {
    return harness_.wait<Result<ReadResult>>([&](auto done) {
      engine_->read(kTarget, chunk, offset, length, pending, std::move(done));
    });
  }
  // All of the committed (or pending) version; "error ..." when it cannot be read.
  std::string content(ChunkId chunk, bool pending = false) {
    auto result = read(chunk, 0, 64 << 20, pending);
    if (!result.ok()) return "error " + result.status().to_string();
    return string_of(result->data);
  }
  std::optional<ChunkState> get(ChunkId chunk) {
    return harness_.on([&] { return engine_->get(kTarget, chunk); });
  }
  engine::InodeChunks chunks_of_inode(uint64_t inode) {
    return harness_.on([&] { return engine_->chunks_of_inode(kTarget, inode); });
  }
  uint64_t version(ChunkId chunk) {
    auto state = get(chunk);
    return state ? state->committed.version : 0;
  }
  // The folder may be at work; it ends by itself.
  Status when_idle(const std::function<Status()>& ask) {
    while (true) {
      Status status = harness_.on(ask);
      if (status.code() != kBusy) return status;
      std::this_thread::yield();
    }
  }
  Status audit() {
    return when_idle([&] { return engine_->audit(); });
  }
  engine::Space space() {
    return harness_.on([&] { return engine_->space(); });
  }
  bool has_room(const engine::BlockCounts& blocks) {
    return harness_.on([&] { return engine_->has_room(blocks); });
  }
  engine::Statistics statistics() {
    return harness_.on([&] { return engine_->statistics(); });
  }

  engine::Options& options() { return options_; }
  engine::Engine& engine() { return *engine_; }
  bool is_open() const { return engine_ != nullptr; }
  ReactorHarness& harness() { return harness_; }
  const std::string& directory() const { return options_.directory; }
  void set_env(rocksdb::Env* env) { env_ = env; }
  void set_patches(engine::PatchLimits limits) { patches_ = limits; }

 private:
  TemporaryDirectory directory_;
  disk::SimMedium* medium_;
  rocksdb::Env* env_ = nullptr;
  engine::PatchLimits patches_;
  engine::Options options_;
  ReactorHarness harness_;
  std::unique_ptr<engine::Engine> engine_;
  uint64_t sequence_ = 0;
};

}  // namespace fs3::test
