#include "engine/folder.h"

#include <algorithm>

#include "base/check.h"
#include "engine/chunk_engine.h"

namespace fs3::engine {
namespace {

// Chunks of one pass: their updates wait for it, so it must not take longer than a few
// milliseconds.
constexpr size_t kChunksPerPass = 64;

// A run of blocks that comes from one row.
struct Piece {
  uint32_t begin = 0;
  Buffer bytes;
};

// What of the rows is seen: the youngest where several lie over one another, nothing beyond the
// stored bytes.
std::vector<Piece> visible_pieces(const Version& version) {
  std::vector<Piece> pieces;
  std::set<uint32_t> seen;
  uint32_t blocks = blocks_of(version.stored_length);
  for (auto row = version.patches.rbegin(); row != version.patches.rend(); ++row) {
    uint32_t first = (*row)->first_block();
    auto count = static_cast<uint32_t>((*row)->bytes().size() / kBlockBytes);
    uint32_t last = std::min(first + count, blocks);
    for (uint32_t at = first; at < last; ++at) {
      if (!seen.insert(at).second) continue;
      Buffer block = (*row)->bytes().slice((at - first) * kBlockBytes, kBlockBytes);
      if (!pieces.empty() && pieces.back().begin + pieces.back().bytes.size() == at * kBlockBytes &&
          pieces.back().bytes.data() + pieces.back().bytes.size() == block.data()) {
        pieces.back().bytes = (*row)->bytes().slice(pieces.back().begin - (*row)->begin(),
                                                    pieces.back().bytes.size() + kBlockBytes);
      } else {
        pieces.push_back({at * kBlockBytes, std::move(block)});
      }
    }
  }
  return pieces;
}

}  // namespace

struct Folder::Pass {
  std::vector<Fold> folds;
  size_t in_flight = 0;  // writes, then batches
  Status error;
};

void Folder::committed(const ChunkKey& key) {
  const Chunk* chunk = engine_.find(key);
  if (chunk != nullptr && chunk->committed && !chunk->committed->patches.empty()) {
    enqueue(key);
    long_chunk_ |= chunk->committed->patches.size() >= limits_.rows / 2;
  }
  look();
}

void Folder::enqueue(const ChunkKey& key) {
  if (queued_.insert(key).second) queue_.push_back(key);
}

bool Folder::wanted() const {
  return !queue_.empty() && (long_chunk_ || *total_ >= limits_.fold_bytes);
}

void Folder::look() {
  if (running_ || !wanted() || engine_.failed()) return;
  running_ = true;
  // Not here: this may be the middle of an update.
  engine_.answer<int>([this](int) { run(); }, 0);
}

bool Folder::ready(const ChunkKey& key) const {
  const Chunk* chunk = engine_.find(key);
  if (chunk == nullptr || chunk->pending || engine_.active_.contains(key)) return false;
  if (!chunk->committed->block) return false;
  return chunk->committed->block->held_only_by(chunk->committed.get());
}

void Folder::run() {
  long_chunk_ = false;
  auto pass = std::make_shared<Pass>();
  for (size_t left = queue_.size(); left > 0 && pass->folds.size() < kChunksPerPass; --left) {
    ChunkKey key = queue_.front();
    queue_.pop_front();
    queued_.erase(key);
    const Chunk* chunk = engine_.find(key);
    bool patched = chunk != nullptr && chunk->committed && !chunk->committed->patches.empty();
    // A bad block waits for its repair, which replaces the chunk and its rows.
    if (!patched || chunk->committed->block->bad) continue;
    if (!ready(key)) {
      enqueue(key);
      continue;
    }
    engine_.enter(key, [] {});  // nobody was there, so it is ours at once
    pass->folds.push_back({key, chunk->committed});
  }
  if (pass->folds.empty()) return end();
  ++pass->in_flight;
  for (const Fold& fold : pass->folds) write(pass, fold);
  written(pass, Status());
}

void Folder::write(const std::shared_ptr<Pass>& pass, const Fold& fold) {
  const Block& block = *fold.version->block;
  for (Piece& piece : visible_pieces(*fold.version)) {
    ++pass->in_flight;
    engine_.statistics_.folded_bytes += piece.bytes.size();
    engine_.blocks_->file(block.address().size_class)
        .write(block.file_offset() + piece.begin, std::move(piece.bytes),
               [this, pass](Status status) { written(pass, status); });
  }
}

void Folder::written(const std::shared_ptr<Pass>& pass, const Status& status) {
  if (pass->error.ok() && !status.ok()) pass->error = status;
  if (--pass->in_flight == 0) finish(pass);
}

void Folder::finish(const std::shared_ptr<Pass>& pass) {
  if (!pass->error.ok()) engine_.fail(pass->error);
  if (engine_.failed()) {
    for (const Fold& fold : pass->folds) engine_.leave(fold.key);
    return end();
  }
  pass->in_flight = pass->folds.size();
  for (const Fold& fold : pass->folds) remove_rows(pass, fold);
}

void Folder::remove_rows(const std::shared_ptr<Pass>& pass, const Fold& fold) {
  CommitItem item;
  item.written = &engine_.blocks_->file(fold.version->block->address().size_class);
  // Rows that come back after power loss hold what the block holds.
  item.synced = false;
  for (const PatchRowRef& row : fold.version->patches) {
    item.changes.push_back({MetaChange::Kind::kDelete,
                            patch_key(fold.key.target, fold.key.chunk, row->version()),
                            {}});
  }
  auto apply = [this, fold] {
    VersionRef& committed =
        engine_.targets_.at(fold.key.target).chunks.at(fold.key.chunk).committed;
    FS3_CHECK(committed == fold.version);
    auto folded = std::make_shared<Version>(*committed);
    folded->patches.clear();
    folded->block->add_holder(folded);
    committed = std::move(folded);
  };
  engine_.submit(fold.key, std::move(item), std::move(apply), [this, pass](Status) {
    if (--pass->in_flight == 0) end();
  });
}

void Folder::end() {
  running_ = false;
  // Those that were passed over wait for the next commit; otherwise this would spin.
  if (!queue_.empty() && *total_ >= limits_.fold_bytes && !engine_.failed()) {
    bool any = std::any_of(queue_.begin(), queue_.end(), [this](auto& key) { return ready(key); });
    if (any) look();
  }
}

}  // namespace fs3::engine
