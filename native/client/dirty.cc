#include "client/dirty.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/check.h"

namespace fs3::client {

namespace {

// One WRITE frame carries at most this (the frame limit is 4 MiB + 64 KiB).
constexpr uint32_t kRunBytesMax = 4u << 20;
constexpr size_t kExtentBytesMax = 1u << 20;
static_assert(kExtentBytesMax <= kRunBytesMax);
// Small writes that follow one another share a buffer, doubled until it has this size.
constexpr size_t kGrowBytesMax = 1u << 20;
constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

}  // namespace

void DirtyChunks::add(uint64_t offset, const Buffer& data, bool keep, bool buffered) {
  size_t done = 0;
  while (done < data.size()) {
    uint64_t at = offset + done;
    auto inside = static_cast<uint32_t>(at % chunk_size_);
    size_t length = std::min({size_t{chunk_size_ - inside}, data.size() - done, kExtentBytesMax});
    add_to_chunk(at / chunk_size_, inside, data.slice(done, length), keep, buffered);
    done += length;
  }
}

void DirtyChunks::add_to_chunk(uint64_t index, uint32_t offset, Buffer data, bool keep,
                               bool buffered) {
  Chunk& chunk = chunks_[index];
  uint32_t end = offset + static_cast<uint32_t>(data.size());
  bool placed = !keep && (write_in_place(chunk, offset, data, buffered) ||
                          append(chunk, offset, data, buffered));
  if (!placed) {
    uint64_t epoch = std::min(cut(chunk, offset, end), epoch_);
    bool growable = !keep;
    if (!keep) data = Buffer::copy_of(data.data(), data.size());
    insert(chunk, offset, {std::move(data), epoch, growable, buffered});
  }
  if (end == chunk_size_) {
    // Complete as far as a sequential writer is concerned: send it while the next one fills.
    chunk.wanted_epoch = std::max(chunk.wanted_epoch, epoch_);
    queue_if_ready(index, chunk);
  }
}

bool DirtyChunks::write_in_place(Chunk& chunk, uint32_t offset, const Buffer& data, bool buffered) {
  auto after = chunk.waiting.upper_bound(offset);
  if (after == chunk.waiting.begin()) return false;
  auto& [start, extent] = *std::prev(after);
  if (!extent.growable || offset + data.size() > start + extent.data.size()) return false;
  std::memcpy(extent.data.data() + (offset - start), data.data(), data.size());
  extent.buffered |= buffered;
  return true;
}

bool DirtyChunks::append(Chunk& chunk, uint32_t offset, const Buffer& data, bool buffered) {
  auto after = chunk.waiting.upper_bound(offset);
  if (after == chunk.waiting.begin()) return false;
  auto before = std::prev(after);
  Extent& extent = before->second;
  size_t old_size = extent.data.size();
  if (!extent.growable || before->first + old_size != offset) return false;
  size_t new_size = old_size + data.size();
  if (new_size > extent.data.capacity()) {
    if (new_size > kGrowBytesMax) return false;
    Buffer larger = Buffer::allocate(std::min(std::max(new_size, 2 * old_size), kGrowBytesMax));
    std::memcpy(larger.data(), extent.data.data(), old_size);
    larger.resize(old_size);
    extent.data = std::move(larger);
  }
  uint64_t replaced = cut(chunk, offset, offset + static_cast<uint32_t>(data.size()));
  extent.data.resize(new_size);
  std::memcpy(extent.data.data() + old_size, data.data(), data.size());
  bytes_ += data.size();
  extent.buffered |= buffered;
  lower_epoch(extent, replaced);
  return true;
}

uint64_t DirtyChunks::cut(Chunk& chunk, uint32_t begin, uint32_t end) {
  uint64_t oldest = kNever;
  auto it = chunk.waiting.lower_bound(begin);
  if (it != chunk.waiting.begin()) --it;
  while (it != chunk.waiting.end() && it->first < end) {
    auto here = it++;
    uint32_t start = here->first;
    uint32_t stop = start + static_cast<uint32_t>(here->second.data.size());
    if (stop <= begin) continue;
    Extent old = here->second;  // shares the memory
    oldest = std::min(oldest, old.epoch);
    erase(chunk, here);
    old.growable = false;  // its memory may be shared by two extents from here on
    if (start < begin)
      insert(chunk, start, {old.data.slice(0, begin - start), old.epoch, false, old.buffered});
    if (stop > end) {
      insert(chunk, end, {old.data.slice(end - start, stop - end), old.epoch, false, old.buffered});
    }
  }
  return oldest;
}

void DirtyChunks::insert(Chunk& chunk, uint32_t offset, Extent extent) {
  FS3_CHECK(!extent.data.empty());
  bytes_ += extent.data.size();
  ++extents_;
  count(extent.epoch, 1);
  bool fresh = chunk.waiting.emplace(offset, std::move(extent)).second;
  FS3_CHECK(fresh);
}

void DirtyChunks::erase(Chunk& chunk, std::map<uint32_t, Extent>::iterator where) {
  bytes_ -= where->second.data.size();
  --extents_;
  count(where->second.epoch, -1);
  chunk.waiting.erase(where);
}

void DirtyChunks::lower_epoch(Extent& extent, uint64_t epoch) {
  if (epoch >= extent.epoch) return;
  count(extent.epoch, -1);
  extent.epoch = epoch;
  count(epoch, 1);
}

void DirtyChunks::count(uint64_t epoch, int change) {
  uint32_t& extents = epochs_[epoch];
  FS3_CHECK(change > 0 || extents > 0);
  extents += static_cast<uint32_t>(change);
  if (extents == 0) epochs_.erase(epoch);
}

std::vector<Gap> DirtyChunks::read(uint64_t offset, std::span<std::byte> into) const {
  std::vector<std::pair<uint64_t, uint64_t>> covered;  // begin, end
  uint64_t end = offset + into.size();
  auto copy = [&](uint64_t begin, const Buffer& data) {
    uint64_t from = std::max(begin, offset);
    uint64_t to = std::min(begin + data.size(), end);
    if (from >= to) return;
    std::memcpy(into.data() + (from - offset), data.data() + (from - begin), to - from);
    covered.emplace_back(from, to);
  };
  for (auto it = chunks_.lower_bound(offset / chunk_size_); it != chunks_.end(); ++it) {
    uint64_t base = it->first * chunk_size_;
    if (base >= end) break;
    if (it->second.flying) {
      uint64_t at = base + it->second.flying->offset;
      for (const Extent& extent : it->second.flying->extents) {
        copy(at, extent.data);
        at += extent.data.size();
      }
    }
    for (const auto& [start, extent] : it->second.waiting) copy(base + start, extent.data);
  }
  std::sort(covered.begin(), covered.end());
  std::vector<Gap> gaps;
  uint64_t at = offset;
  for (auto [from, to] : covered) {
    if (from > at) gaps.push_back({at, from - at});
    at = std::max(at, to);
  }
  if (at < end) gaps.push_back({at, end - at});
  return gaps;
}

bool DirtyChunks::overlaps(uint64_t offset, uint64_t length) const {
  uint64_t end = offset + length;
  auto meets = [&](uint64_t begin, uint64_t size) { return begin < end && offset < begin + size; };
  for (auto it = chunks_.lower_bound(offset / chunk_size_); it != chunks_.end(); ++it) {
    uint64_t base = it->first * chunk_size_;
    if (base >= end) break;
    const auto& flying = it->second.flying;
    if (flying && meets(base + flying->offset, flying->length)) return true;
    for (const auto& [start, extent] : it->second.waiting)
      if (meets(base + start, extent.data.size())) return true;
  }
  return false;
}

std::vector<Gap> DirtyChunks::ranges(uint64_t offset, uint64_t end) const {
  std::vector<std::pair<uint64_t, uint64_t>> all;  // begin, end
  auto take = [&](uint64_t begin, uint64_t size) {
    uint64_t from = std::max(begin, offset), to = std::min(begin + size, end);
    if (from < to) all.emplace_back(from, to);
  };
  for (auto it = chunks_.lower_bound(offset / chunk_size_); it != chunks_.end(); ++it) {
    uint64_t base = it->first * chunk_size_;
    if (base >= end) break;
    const auto& flying = it->second.flying;
    if (flying) take(base + flying->offset, flying->length);
    for (const auto& [start, extent] : it->second.waiting) take(base + start, extent.data.size());
  }
  std::sort(all.begin(), all.end());
  std::vector<Gap> merged;
  for (auto [from, to] : all) {
    if (merged.empty() || from > merged.back().offset + merged.back().length) {
      merged.push_back({from, to - from});
    } else {
      merged.back().length = std::max(merged.back().length, to - merged.back().offset);
    }
  }
  return merged;
}

uint64_t DirtyChunks::want_all() {
  for (auto& [index, chunk] : chunks_) {
    chunk.wanted_epoch = epoch_;
    queue_if_ready(index, chunk);
  }
  return epoch_++;
}

uint64_t DirtyChunks::want(uint64_t first, uint64_t last) {
  for (auto it = chunks_.lower_bound(first); it != chunks_.end() && it->first <= last; ++it) {
    it->second.wanted_epoch = epoch_;
    queue_if_ready(it->first, it->second);
  }
  return epoch_++;
}

uint64_t DirtyChunks::oldest(const Chunk& chunk) const {
  uint64_t oldest = kNever;
  for (const auto& [start, extent] : chunk.waiting) oldest = std::min(oldest, extent.epoch);
  return oldest;
}

void DirtyChunks::queue_if_ready(uint64_t index, Chunk& chunk) {
  if (chunk.queued || chunk.flying || oldest(chunk) > chunk.wanted_epoch) return;
  chunk.queued = true;
  ready_.push_back(index);
}

std::optional<Run> DirtyChunks::take() {
  while (!ready_.empty()) {
    uint64_t index = ready_.front();
    ready_.pop_front();
    auto found = chunks_.find(index);
    if (found == chunks_.end()) continue;  // trimmed away
    Chunk& chunk = found->second;
    chunk.queued = false;
    if (chunk.flying || chunk.waiting.empty()) continue;  // forgotten by trim and written again
    // Around the oldest extent, so that a steady writer elsewhere in the chunk cannot starve it.
    auto first = std::min_element(
        chunk.waiting.begin(), chunk.waiting.end(),
        [](const auto& a, const auto& b) { return a.second.epoch < b.second.epoch; });
    size_t length = first->second.data.size();
    while (first != chunk.waiting.begin()) {
      auto before = std::prev(first);
      size_t size = before->second.data.size();
      if (before->first + size != first->first || length + size > kRunBytesMax) break;
      first = before;
      length += size;
    }
    Run run{index, first->first, 0, {}, false};
    Flying flying{first->first, 0, {}};
    for (auto it = first; it != chunk.waiting.end() && it->first == run.offset + run.length;) {
      Extent& extent = it->second;
      size_t size = extent.data.size();
      if (run.length > 0 && run.length + size > kRunBytesMax) break;
      run.length += static_cast<uint32_t>(size);
      run.pieces.push_back(extent.data);
      run.buffered |= extent.buffered;
      extent.growable = false;
      flying.extents.push_back(std::move(extent));
      it = chunk.waiting.erase(it);
    }
    flying.length = run.length;
    chunk.flying = std::move(flying);
    return run;
  }
  return std::nullopt;
}

bool DirtyChunks::claim(uint64_t index) {
  Chunk& chunk = chunks_[index];
  if (chunk.flying || !chunk.waiting.empty()) return false;
  chunk.flying = Flying{};
  return true;
}

void DirtyChunks::finish(uint64_t index) {
  auto found = chunks_.find(index);
  FS3_CHECK(found != chunks_.end() && found->second.flying);
  Chunk& chunk = found->second;
  for (const Extent& extent : chunk.flying->extents) {
    bytes_ -= extent.data.size();
    --extents_;
    count(extent.epoch, -1);
  }
  chunk.flying.reset();
  if (chunk.waiting.empty()) {
    chunks_.erase(found);
  } else {
    queue_if_ready(index, chunk);
  }
}

bool DirtyChunks::settled(uint64_t epoch, uint64_t first, uint64_t last) const {
  for (auto it = chunks_.lower_bound(first); it != chunks_.end() && it->first <= last; ++it) {
    if (oldest(it->second) <= epoch) return false;
    if (!it->second.flying) continue;
    for (const Extent& extent : it->second.flying->extents) {
      if (extent.epoch <= epoch) return false;
    }
  }
  return true;
}

void DirtyChunks::trim(uint64_t size) {
  for (auto it = chunks_.lower_bound(size / chunk_size_); it != chunks_.end();) {
    auto here = it++;
    Chunk& chunk = here->second;
    uint64_t base = here->first * chunk_size_;
    auto keep = static_cast<uint32_t>(size > base ? size - base : 0);
    (void)cut(chunk, keep, chunk_size_);
    if (chunk.waiting.empty() && !chunk.flying) chunks_.erase(here);
  }
}

uint64_t DirtyChunks::end() const {
  if (chunks_.empty()) return 0;
  const auto& [index, chunk] = *chunks_.rbegin();
  uint64_t base = index * chunk_size_;
  uint64_t end = 0;
  if (chunk.flying) end = base + chunk.flying->offset + chunk.flying->length;
  if (!chunk.waiting.empty()) {
    const auto& [start, extent] = *chunk.waiting.rbegin();
    end = std::max(end, base + start + extent.data.size());
  }
  return end;
}

}  // namespace fs3::client
