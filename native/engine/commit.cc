// The updates that write metadata only: commit, discard, drop, dedup rows.
#include <algorithm>
#include <cerrno>

#include "base/check.h"
#include "engine/chunk_engine.h"

namespace fs3::engine {
namespace {

using Kind = MetaChange::Kind;

Status no_target(const std::string& directory, TargetId target) {
  return Status(kUnknownTarget, "engine", directory + " has no target " + std::to_string(target));
}

}  // namespace

// Submits the item; when it is durable changes the table by `apply`, lets the next update of the
// chunk run, and answers.
void ChunkEngine::submit(const ChunkKey& key, CommitItem item, Function<void()> apply,
                         Function<void(Status)> done) {
  item.done = [this, key, apply = std::move(apply), done = std::move(done)](Status status) mutable {
    if (status.ok()) apply();
    leave(key);
    done(std::move(status));
  };
  committer_->submit(std::move(item));
}

// Only the highest sequence of a (client, channel) counts. Updates without identity make no row.
// Memory changes now, so that rows are compared in the order in which they will be stored.
void ChunkEngine::add_dedup(TargetId target, DedupRow row, std::vector<MetaChange>& changes) {
  if (row.identity == UpdateIdentity{}) return;
  std::vector<DedupRow> evicted;
  if (!targets_.at(target).dedup.put(row, evicted)) return;
  changes.push_back({Kind::kPut, dedup_key(target, row.identity), encode(row)});
  for (const DedupRow& old : evicted) {
    changes.push_back({Kind::kDelete, dedup_key(target, old.identity), {}});
  }
}

void ChunkEngine::commit(TargetId target, ChunkId chunk, uint64_t version, bool synced,
                         Function<void(Status)> done) {
  ++statistics_.commits;
  if (failed()) return answer<Status>(std::move(done), failure());
  if (find_target(target) == nullptr) {
    return answer<Status>(std::move(done), no_target(options_.directory, target));
  }
  ChunkKey key{target, chunk};
  enter(key, [this, key, version, synced, done = std::move(done)]() mutable {
    commit_now(key, version, synced, std::move(done));
  });
}

void ChunkEngine::commit_now(const ChunkKey& key, uint64_t version, bool synced,
                             Function<void(Status)> done) {
  const Chunk* chunk = find(key);
  if (chunk == nullptr || !chunk->pending || chunk->pending->info.version != version) {
    bool already = chunk != nullptr && chunk->committed &&
                   chunk->committed->info.version == version && !chunk->pending;
    leave(key);
    if (already) return answer<Status>(std::move(done), Status());
    return answer<Status>(
        std::move(done),
        Status(kMissingBase, "engine/commit",
               "chunk " + std::to_string(key.chunk.inode) + "." + std::to_string(key.chunk.index) +
                   " has no pending version " + std::to_string(version)));
  }
  VersionRef next = chunk->pending;
  CommitItem item;
  item.synced = synced;
  item.kept.push_back(chunk->committed);
  commit_changes(key, *chunk, *next, chunk->free_slot(), item.changes);
  auto apply = [this, key, next] { make_committed(key, next); };
  submit(key, std::move(item), std::move(apply), std::move(done));
}

// The rows of patches that lie over `version` and not over `others`.
void ChunkEngine::remove_patches(const ChunkKey& key, const VersionRef& version,
                                 std::initializer_list<const Version*> others,
                                 std::vector<MetaChange>& changes) {
  if (!version) return;
  for (const PatchRowRef& row : version->patches) {
    bool kept = std::any_of(others.begin(), others.end(), [&](const Version* other) {
      return other != nullptr &&
             std::find(other->patches.begin(), other->patches.end(), row) != other->patches.end();
    });
    if (kept) continue;
    changes.push_back({Kind::kDelete, patch_key(key.target, key.chunk, row->version()), {}});
  }
}

// The rows that make `next`, whose row is or will be in `slot`, the committed version.
void ChunkEngine::commit_changes(const ChunkKey& key, const Chunk& chunk, const Version& next,
                                 uint8_t slot, std::vector<MetaChange>& changes) {
  auto row_key = [&](ChunkRow row) { return chunk_key(key.target, key.chunk, row); };
  if (next.info.kind == UpdateKind::kRemove) {
    changes.push_back({Kind::kDelete, row_key(ChunkRow::kHead), {}});
    changes.push_back({Kind::kDelete, row_key(ChunkRow::kSlot0), {}});
    changes.push_back({Kind::kDelete, row_key(ChunkRow::kSlot1), {}});
    remove_patches(key, chunk.committed, {}, changes);
    remove_patches(key, chunk.pending, {chunk.committed.get()}, changes);
  } else {
    remove_patches(key, chunk.committed, {&next}, changes);
    changes.push_back({Kind::kPut, row_key(ChunkRow::kHead), encode(HeadRecord{slot, kNoSlot})});
    if (chunk.committed) {
      changes.push_back({Kind::kDelete, row_key(slot_row(chunk.committed_slot)), {}});
    }
  }
  DedupRow row{next.info.identity, key.chunk,          next.info.version,
               next.info.length,   next.info.checksum, 0};
  add_dedup(key.target, row, changes);
}

void ChunkEngine::make_committed(const ChunkKey& key, const VersionRef& next) {
  auto& chunks = targets_.at(key.target).chunks;
  if (next->info.kind == UpdateKind::kRemove) {
    chunks.erase(key.chunk);
    blocks_->trim();
    return;
  }
  Chunk& chunk = chunks[key.chunk];
  chunk.committed_slot = chunk.free_slot();
  chunk.committed = next;
  chunk.pending = nullptr;
  folder_.committed(key);
}

void ChunkEngine::discard(TargetId target, ChunkId chunk, Function<void(Status)> done) {
  if (failed()) return answer<Status>(std::move(done), failure());
  if (find_target(target) == nullptr) {
    return answer<Status>(std::move(done), no_target(options_.directory, target));
  }
  ChunkKey key{target, chunk};
  enter(key, [this, key, done = std::move(done)]() mutable { discard_now(key, std::move(done)); });
}

void ChunkEngine::discard_now(const ChunkKey& key, Function<void(Status)> done) {
  const Chunk* chunk = find(key);
  if (chunk == nullptr || !chunk->pending) {
    leave(key);
    return answer<Status>(std::move(done), Status());
  }
  if (!chunk->committed) return drop_now(key, std::move(done));
  CommitItem item;
  item.kept.push_back(chunk->pending);
  item.changes.push_back({Kind::kPut, chunk_key(key.target, key.chunk, ChunkRow::kHead),
                          encode(HeadRecord{chunk->committed_slot, kNoSlot})});
  item.changes.push_back(
      {Kind::kDelete, chunk_key(key.target, key.chunk, slot_row(chunk->free_slot())), {}});
  remove_patches(key, chunk->pending, {chunk->committed.get()}, item.changes);
  auto apply = [this, key] { targets_.at(key.target).chunks.at(key.chunk).pending = nullptr; };
  submit(key, std::move(item), std::move(apply), std::move(done));
}

void ChunkEngine::drop(TargetId target, ChunkId chunk, Function<void(Status)> done) {
  if (failed()) return answer<Status>(std::move(done), failure());
  if (find_target(target) == nullptr) {
    return answer<Status>(std::move(done), no_target(options_.directory, target));
  }
  ChunkKey key{target, chunk};
  enter(key, [this, key, done = std::move(done)]() mutable { drop_now(key, std::move(done)); });
}

void ChunkEngine::drop_now(const ChunkKey& key, Function<void(Status)> done) {
  const Chunk* chunk = find(key);
  if (chunk == nullptr) {
    leave(key);
    return answer<Status>(std::move(done), Status());
  }
  CommitItem item;
  item.kept.push_back(chunk->committed);
  item.kept.push_back(chunk->pending);
  for (ChunkRow row : {ChunkRow::kHead, ChunkRow::kSlot0, ChunkRow::kSlot1}) {
    item.changes.push_back({Kind::kDelete, chunk_key(key.target, key.chunk, row), {}});
  }
  remove_patches(key, chunk->committed, {}, item.changes);
  remove_patches(key, chunk->pending, {chunk->committed.get()}, item.changes);
  auto apply = [this, key] {
    targets_.at(key.target).chunks.erase(key.chunk);
    blocks_->trim();
  };
  submit(key, std::move(item), std::move(apply), std::move(done));
}

void ChunkEngine::put_dedup_rows(TargetId target, std::vector<DedupRow> rows, bool replace,
                                 Function<void(Status)> done) {
  if (failed()) return answer<Status>(std::move(done), failure());
  if (find_target(target) == nullptr) {
    return answer<Status>(std::move(done), no_target(options_.directory, target));
  }
  CommitItem item;
  auto& known = targets_.at(target).dedup;
  if (replace) {
    for (const DedupRow& row : known.in_order()) {
      item.changes.push_back({Kind::kDelete, dedup_key(target, row.identity), {}});
    }
    known.clear();
  }
  for (const DedupRow& row : rows) add_dedup(target, row, item.changes);
  item.done = std::move(done);
  committer_->submit(std::move(item));
}

}  // namespace fs3::engine
