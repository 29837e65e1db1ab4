#include "client/identity.h"

#include <cstring>

#include "base/check.h"

namespace fs3::client {

namespace {
constexpr size_t kKeptMax = 16'384;
}  // namespace

Identities::Identities(const std::string& client_id) {
  FS3_CHECK(client_id.size() == client_id_.size());
  std::memcpy(client_id_.data(), client_id.data(), client_id_.size());
}

UpdateIdentity Identities::acquire(ChunkId chunk) {
  std::lock_guard lock(mutex_);
  if (auto kept = kept_.find(chunk); kept != kept_.end()) {
    uint32_t channel = kept->second;
    kept_.erase(kept);
    std::erase(kept_order_, chunk);
    return {client_id_, channel, ++sequences_[channel]};
  }
  if (free_.empty()) {
    free_.push_back(static_cast<uint32_t>(sequences_.size()));
    sequences_.push_back(0);
  }
  uint32_t channel = free_.back();
  free_.pop_back();
  return {client_id_, channel, ++sequences_[channel]};
}

UpdateIdentity Identities::next(uint32_t channel) {
  std::lock_guard lock(mutex_);
  FS3_CHECK(channel < sequences_.size());
  return {client_id_, channel, ++sequences_[channel]};
}

void Identities::release(uint32_t channel) {
  std::lock_guard lock(mutex_);
  FS3_CHECK(channel < sequences_.size());
  free_.push_back(channel);
}

void Identities::keep(ChunkId chunk, uint32_t channel) {
  std::lock_guard lock(mutex_);
  FS3_CHECK(channel < sequences_.size());
  bool fresh = kept_.emplace(chunk, channel).second;
  // Two updates of one chunk are under way only where servers repeat a decision of their own: there
  // the one that is known already will do.
  if (!fresh) return free_.push_back(channel);
  kept_order_.push_back(chunk);
  if (kept_order_.size() <= kKeptMax) return;
  auto oldest = kept_.find(kept_order_.front());
  kept_order_.pop_front();
  free_.push_back(oldest->second);
  kept_.erase(oldest);
}

size_t Identities::channels() const {
  std::lock_guard lock(mutex_);
  return sequences_.size();
}

}  // namespace fs3::client
