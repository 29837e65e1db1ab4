#include "client/identity.h"

#include <cstring>

#include "base/check.h"

namespace fs3::client {

Identities::Identities(const std::string& client_id) {
  FS3_CHECK(client_id.size() == client_id_.size());
  std::memcpy(client_id_.data(), client_id.data(), client_id_.size());
}

UpdateIdentity Identities::acquire() {
  std::lock_guard lock(mutex_);
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

size_t Identities::channels() const {
  std::lock_guard lock(mutex_);
  return sequences_.size();
}

}  // namespace fs3::client
