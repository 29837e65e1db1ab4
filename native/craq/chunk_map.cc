#include "craq/chunk_map.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace fs3::craq {
namespace {

template <typename Run>
auto lower(Run& run, const ChunkId& id) {
  return std::lower_bound(run.begin(), run.end(), id,
                          [](const auto& entry, const ChunkId& key) { return entry.id < key; });
}

}  // namespace

ChunkMap::Runs::iterator ChunkMap::run_of(const ChunkId& id) {
  auto it = runs_.upper_bound(id);
  return it == runs_.begin() ? runs_.end() : std::prev(it);
}

Record* ChunkMap::find(const ChunkId& id) {
  auto run = run_of(id);
  if (run == runs_.end()) return nullptr;
  auto at = lower(run->second, id);
  return at != run->second.end() && at->id == id ? &at->record : nullptr;
}

void ChunkMap::put(const ChunkId& id, const Record& record) {
  if (Record* known = find(id)) {
    *known = record;
    return;
  }
  ++size_;
  auto run = run_of(id);
  if (run == runs_.end()) {
    // Before all others: the first run takes it under a new first key, unless it is full.
    if (runs_.empty() || runs_.begin()->second.size() >= kRunMax) {
      runs_[id].push_back({id, record});
      return;
    }
    auto node = runs_.extract(runs_.begin());
    node.key() = id;
    run = runs_.insert(std::move(node)).position;
  }
  run->second.insert(lower(run->second, id), {id, record});
  if (run->second.size() > kRunMax) split(run);
}

// A run that grows at its end, as files written in order make it grow, stays full; others halve.
void ChunkMap::split(Runs::iterator run) {
  bool last = std::next(run) == runs_.end();
  size_t keep = last ? run->second.size() - 1 : run->second.size() / 2;
  Run tail(run->second.begin() + static_cast<ptrdiff_t>(keep), run->second.end());
  run->second.resize(keep);
  run->second.shrink_to_fit();
  ChunkId first = tail.front().id;
  FS3_CHECK(run->second.back().id < first);
  runs_.emplace_hint(std::next(run), first, std::move(tail));
}

void ChunkMap::erase(const ChunkId& id) {
  auto run = run_of(id);
  if (run == runs_.end()) return;
  auto at = lower(run->second, id);
  if (at == run->second.end() || at->id != id) return;
  --size_;
  run->second.erase(at);
  if (run->second.empty()) {
    runs_.erase(run);
    return;
  }
  auto next = std::next(run);
  if (next == runs_.end() || run->second.size() + next->second.size() > kRunMax / 2) return;
  run->second.insert(run->second.end(), next->second.begin(), next->second.end());
  runs_.erase(next);
}

std::optional<ChunkId> ChunkMap::next(const std::optional<ChunkId>& after) const {
  if (runs_.empty()) return std::nullopt;
  if (!after) return runs_.begin()->second.front().id;
  auto it = runs_.upper_bound(*after);
  if (it != runs_.begin()) {
    const Run& run = std::prev(it)->second;
    auto at = std::upper_bound(run.begin(), run.end(), *after,
                               [](const ChunkId& key, const Entry& e) { return key < e.id; });
    if (at != run.end()) return at->id;
  }
  if (it == runs_.end()) return std::nullopt;
  return it->second.front().id;
}

}  // namespace fs3::craq
