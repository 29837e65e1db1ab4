// What chunks must hold, computed the simple way: strings in memory.
#pragma once

#include <algorithm>
#include <optional>
#include <random>
#include <string>

#include "engine_harness.h"

namespace fs3::test {

struct ModelChunk {
  bool exists = false;  // a committed version
  uint64_t version = 0;
  std::string content;
  std::optional<UpdateKind> pending;
  uint64_t pending_version = 0;
  std::string pending_content;

  bool operator==(const ModelChunk&) const = default;
};

// One update, with the state it leads to.
struct ModelUpdate {
  enum class Call { kStage, kCommit, kDiscard, kDrop } call = Call::kStage;
  StageRequest request;  // kStage
  bool synced = true;    // kCommit
  ModelChunk after;
};

inline void model_commit(ModelChunk& chunk) {
  if (*chunk.pending == UpdateKind::kRemove) {
    chunk = ModelChunk{};
    return;
  }
  chunk.exists = true;
  chunk.version = chunk.pending_version;
  chunk.content = std::move(chunk.pending_content);
  chunk.pending.reset();
  chunk.pending_version = 0;
  chunk.pending_content.clear();
}

// A random update that the engine must accept in the given state.
class UpdateMaker {
 public:
  UpdateMaker(uint64_t seed, uint32_t chunk_bytes) : random_(seed), chunk_bytes_(chunk_bytes) {}

  uint64_t below(uint64_t bound) { return random_() % bound; }

  ModelUpdate next(EngineWorld& world, ChunkId id, const ModelChunk& now) {
    ModelUpdate update;
    update.after = now;
    uint64_t dice = below(100);
    if (now.pending && dice < 60) {
      update.call = ModelUpdate::Call::kCommit;
      update.synced = below(2) == 0;
      model_commit(update.after);
      return update;
    }
    if (dice >= 97) {
      update.call = ModelUpdate::Call::kDrop;
      update.after = ModelChunk{};
      return update;
    }
    if (dice >= 92) {
      update.call = ModelUpdate::Call::kDiscard;
      update.after.pending.reset();
      update.after.pending_version = 0;
      update.after.pending_content.clear();
      return update;
    }
    stage(world, id, now, update);
    return update;
  }

 private:
  void stage(EngineWorld& world, ChunkId id, const ModelChunk& now, ModelUpdate& update) {
    uint64_t dice = below(100);
    UpdateKind kind = dice < 60   ? UpdateKind::kWrite
                      : dice < 80 ? UpdateKind::kTruncate
                      : dice < 92 ? UpdateKind::kReplace
                                  : UpdateKind::kRemove;
    uint64_t version = now.version + 1;
    std::string next = now.content;
    uint32_t offset = 0;
    std::string data;
    uint32_t length = 0;
    switch (kind) {
      case UpdateKind::kWrite:
        // Often an append, often on block boundaries.
        offset = static_cast<uint32_t>(below(3) == 0 ? next.size() : below(chunk_bytes_));
        if (below(3) == 0) offset = offset / 4096 * 4096;
        data = pattern(below(below(2) == 0 ? 9000 : chunk_bytes_), seed_++);
        if (below(3) == 0) data.resize(data.size() / 4096 * 4096);
        if (!data.empty() && next.size() < offset + data.size()) next.resize(offset + data.size());
        next.replace(std::min<size_t>(offset, next.size()), data.size(), data);
        break;
      case UpdateKind::kTruncate:
        length = static_cast<uint32_t>(below(5) == 0 ? 0 : below(chunk_bytes_));
        next.resize(length);
        break;
      case UpdateKind::kReplace:
        version += below(3);
        data = pattern(below(chunk_bytes_), seed_++);
        next = data;
        break;
      default:
        next.clear();
        break;
    }
    update.request = world.request(kind, id, version, offset, data);
    if (kind == UpdateKind::kTruncate) update.request.length = length;
    update.request.commit = below(3) == 0;
    update.after.pending = kind;
    update.after.pending_version = version;
    update.after.pending_content = next;
    if (update.request.commit) model_commit(update.after);
  }

  std::mt19937_64 random_;
  const uint32_t chunk_bytes_;
  uint32_t seed_ = 1;
};

// What the engine holds for the chunk, in the model's terms. Bad bytes show as content "error ...".
inline ModelChunk observe(EngineWorld& world, ChunkId id) {
  ModelChunk chunk;
  auto state = world.get(id);
  if (!state) return chunk;
  if (state->committed.version != 0) {
    chunk.exists = true;
    chunk.version = state->committed.version;
    chunk.content = world.content(id);
  }
  if (state->pending) {
    chunk.pending = state->pending->kind;
    chunk.pending_version = state->pending->version;
    chunk.pending_content = world.content(id, true);
  }
  return chunk;
}

// One blocking update.
inline Status apply(EngineWorld& world, ChunkId id, ModelUpdate update) {
  switch (update.call) {
    case ModelUpdate::Call::kStage:
      return world.stage(std::move(update.request)).status();
    case ModelUpdate::Call::kCommit:
      return world.commit(id, world.get(id)->pending->version, update.synced);
    case ModelUpdate::Call::kDiscard:
      return world.discard(id);
    case ModelUpdate::Call::kDrop:
      return world.drop(id);
  }
  return Status();
}

}  // namespace fs3::test
