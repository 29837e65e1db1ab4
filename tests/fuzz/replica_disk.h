// The disk under a fuzzed replica, and the history of contents that the checks ask.
//
// Content is a number: an entry of the History, which knows what it was made from and by whom. The
// entries lead back through the one history of a chunk, so "is this acknowledged write in there,
// once" is a walk. A disk carries out what it is asked in order, when the input says so; a crash
// drops what was not carried out.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "base/check.h"
#include "craq/replica.h"

namespace fs3::fuzz {

using Position = std::pair<ChainVersion, ChunkVersion>;  // names the content of a chunk for ever

class History {
 public:
  struct Entry {
    uint32_t parent = 0;
    UpdateIdentity identity;
    uint32_t length = 0;
    bool removal = false;
  };

  // The content at `position`; made once, and the same for everybody (I5).
  uint32_t made(ChunkId chunk, Position position, const Entry& entry) {
    auto [at, fresh] = by_position_.try_emplace({chunk, position}, entries_.size());
    if (fresh) {
      entries_.push_back(entry);
    } else {
      const Entry& known = entries_[at->second];
      FS3_CHECK(known.identity == entry.identity && known.length == entry.length);
      // What a removal removes may differ: it makes them equal.
      bool none = entry.removal || (absent(known.parent) && absent(entry.parent));
      FS3_CHECK(known.parent == entry.parent || none);
    }
    return at->second;
  }
  const Entry& entry(uint32_t content) const { return entries_[content]; }
  bool absent(uint32_t content) const { return content == 0 || entries_[content].removal; }
  // How often an update is in the history that ends in `content`.
  size_t count(uint32_t content, const UpdateIdentity& identity) const {
    size_t found = 0;
    for (; content != 0; content = entries_[content].parent) {
      found += entries_[content].identity == identity;
    }
    return found;
  }

 private:
  std::map<std::pair<ChunkId, Position>, uint32_t> by_position_;
  std::vector<Entry> entries_{1};  // 0: nothing
};

struct Version {
  Position position;
  uint32_t content = 0;
  UpdateKind kind = UpdateKind::kNone;
  UpdateIdentity identity;
};

struct Chunk {
  std::optional<Version> committed;
  std::optional<Version> pending;
};

inline bool nobody(const UpdateIdentity& identity) {
  return identity.client_id == std::array<uint8_t, 16>{};
}

class ReplicaDisk {
 public:
  explicit ReplicaDisk(History& history) : history_(history) {}

  // One thing that was asked. `content`: of a REPLACE, what its bytes are.
  struct Job {
    std::variant<craq::Stage, craq::Commit, craq::Discard, craq::PutDedup> what;
    uint32_t content = 0;
  };
  void ask(Job job) { jobs_.push_back(std::move(job)); }
  bool idle() const { return jobs_.empty(); }
  void crash(size_t landing) {
    for (; landing > 0 && !jobs_.empty(); --landing) (void)work();
    jobs_.clear();
  }

  // Carries out the oldest job; the outcome to feed back, if it has one.
  std::optional<craq::Event> work() {
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    return std::visit([&](const auto& what) { return run(what, job.content); }, job.what);
  }

  const std::map<ChunkId, Chunk>& chunks() const { return chunks_; }
  const Chunk* chunk(ChunkId id) const {
    auto found = chunks_.find(id);
    return found == chunks_.end() ? nullptr : &found->second;
  }
  std::vector<craq::LoadDedup> rows() const {
    std::vector<craq::LoadDedup> all;
    for (const auto& [channel, row] : rows_) all.push_back(row);
    return all;
  }
  uint32_t length(uint32_t content) const { return history_.entry(content).length; }

 private:
  using Outcome = std::optional<craq::Event>;

  Outcome run(const craq::Stage& e, uint32_t content) {
    const Chunk before = chunks_[e.chunk];
    uint32_t base = before.committed ? before.committed->content : tip(e.chunk);
    Position position{e.chain_version, e.version};
    if (e.kind != UpdateKind::kReplace && position != Position{}) {
      content = history_.made(e.chunk, position, entry_of(e, base));
    }
    Version made{position, content, e.kind, e.identity};
    if (e.commit) {
      put(e.chunk, made);
    } else {
      chunks_[e.chunk].pending = made;
    }
    forget_empty(e.chunk);
    bool removal = e.kind == UpdateKind::kRemove;
    return craq::Staged{e.op, {}, removal ? 0 : length(content), removal ? 0 : content};
  }

  Outcome run(const craq::Commit& e, uint32_t) {
    Chunk& chunk = chunks_[e.chunk];
    FS3_CHECK(chunk.pending && chunk.pending->position.second == e.version);
    put(e.chunk, Version(*chunk.pending));
    forget_empty(e.chunk);
    return craq::Committed{e.op, {}};
  }
  Outcome run(const craq::Discard& e, uint32_t) {
    chunks_[e.chunk].pending.reset();
    forget_empty(e.chunk);
    return std::nullopt;
  }
  Outcome run(const craq::PutDedup& e, uint32_t) {
    if (e.replace) rows_.clear();
    for (const auto& row : e.rows) put_row(row);
    return std::nullopt;
  }

  History::Entry entry_of(const craq::Stage& e, uint32_t base) const {
    uint32_t length = history_.entry(base).removal ? 0 : history_.entry(base).length;
    if (e.kind == UpdateKind::kWrite) length = std::max(length, e.offset + e.length);
    if (e.kind == UpdateKind::kTruncate) length = e.length;
    bool removal = e.kind == UpdateKind::kRemove;
    return {base, e.identity, removal ? 0 : length, removal};
  }

  void put(ChunkId id, const Version& made) {
    if (made.kind == UpdateKind::kRemove) {
      chunks_[id] = {};
      if (made.position != Position{}) tips_[id] = made.content;
    } else {
      chunks_[id] = {made, std::nullopt};
    }
    if (nobody(made.identity)) return;
    bool removal = made.kind == UpdateKind::kRemove;
    put_row({made.identity, id, made.position.second, removal ? 0 : length(made.content),
             removal ? 0 : made.content});
  }
  void put_row(const craq::LoadDedup& row) {
    auto [at, fresh] = rows_.try_emplace({row.identity.client_id, row.identity.channel}, row);
    if (!fresh && at->second.identity.sequence <= row.identity.sequence) at->second = row;
  }
  void forget_empty(ChunkId id) {
    auto found = chunks_.find(id);
    if (found != chunks_.end() && !found->second.committed && !found->second.pending) {
      chunks_.erase(found);
    }
  }
  // What a removed chunk was last: its history goes on from there.
  uint32_t tip(ChunkId id) const {
    auto found = tips_.find(id);
    return found == tips_.end() ? 0 : found->second;
  }

  History& history_;
  std::deque<Job> jobs_;
  std::map<ChunkId, Chunk> chunks_;
  std::map<ChunkId, uint32_t> tips_;
  std::map<std::pair<std::array<uint8_t, 16>, uint32_t>, craq::LoadDedup> rows_;
};

}  // namespace fs3::fuzz
