#include "client/file.h"

#include <fcntl.h>
#include <time.h>

#include <algorithm>
#include <cstring>

#include "auth/capability.h"
#include "client/core.h"
#include "client/session.h"
#include "meta.pb.h"

namespace fs3::client {

namespace {

// Offsets in the token (proto/CAPABILITY.md).
constexpr size_t kRightsAt = 1;
constexpr size_t kIssuedAt = 32;
constexpr size_t kExpiryAt = 40;

uint64_t load_u64(const std::string& bytes, size_t at) {
  uint64_t value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

}  // namespace

int64_t wall_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * 1'000'000'000ll + now.tv_nsec;
}

OpenFile::OpenFile(uint64_t inode, std::shared_ptr<Placement> placement)
    : inode(inode), placement(std::move(placement)), dirty(this->placement->chunk_size()) {}

std::shared_ptr<Credential> OpenFile::credential(Right right) {
  return {shared_from_this(), right == Right::kRead ? &read_credential_ : &write_credential_};
}

std::string OpenFile::FileCredential::token(const std::shared_ptr<Core>& core, Lane& lane) {
  std::string bytes;
  bool renew_now;
  {
    std::lock_guard lock(file_.mutex);
    const Token& token = file_.tokens[static_cast<int>(right_)];
    bytes = token.bytes;
    renew_now = !bytes.empty() && token.past_half_life(now_ns()) &&
                !file_.renewing[static_cast<int>(right_)];
  }
  // In the background: the present one is good for the other half of its life.
  if (renew_now) renew(core, lane, [](Status) {});
  return bytes;
}

void OpenFile::FileCredential::renew(const std::shared_ptr<Core>& core, Lane& lane,
                                     Function<void(Status)> done) {
  renew_capability(core, lane, file_.shared_from_this(), right_, std::move(done));
}

void OpenFile::adopt(const proto::meta::Attr& attr, int64_t now) {
  if (attr.inode() != inode || attr.version() < attr_version) return;
  attr_version = attr.version();
  attr_size = attr.size();
  has_holes = attr.blocks() * 512 < attr.size();
  if (durable_size && attr.size() < *durable_size) durable_size.reset();
  attr_mtime_ns = attr.mtime_ns();
  size_checked_ns = now;
  size = unsettled() ? std::max(attr.size(), written_end) : attr.size();
}

void OpenFile::adopt_token(const std::string& capability, int64_t now) {
  if (capability.size() != auth::kCapabilitySize) return;
  auto rights = static_cast<uint8_t>(capability[kRightsAt]);
  uint64_t issued = load_u64(capability, kIssuedAt);
  uint64_t expiry = load_u64(capability, kExpiryAt);
  constexpr uint64_t kDayMs = 86'400'000;
  auto lifetime_ms = expiry > issued ? std::min(expiry - issued, kDayMs) : 0;
  Token token{capability, now, static_cast<int64_t>(lifetime_ms) * 1'000'000};
  if (rights & auth::kRead) tokens[static_cast<int>(Right::kRead)] = token;
  if (rights & auth::kWrite) tokens[static_cast<int>(Right::kWrite)] = token;
}

void OpenFile::adopt_quota(const proto::meta::OpenReply& reply) {
  if (reply.capability().empty()) return;
  full = reply.quota() == proto::meta::QUOTA_FULL;
  limited = full || reply.quota() == proto::meta::QUOTA_LIMITED;
}

void OpenFile::note_write(uint64_t offset, uint64_t length, int64_t wall_ns) {
  uint64_t end = offset + length;
  if (offset > size) made_holes = true;
  size = std::max(size, end);
  written_end = std::max(written_end, end);
  accepted_bytes += length;
  mtime_ns = wall_ns;
  ++write_generation;
}

void OpenFile::note_change(int64_t wall_ns) {
  mtime_ns = wall_ns;
  ++write_generation;
}

void OpenFile::note_acked(uint64_t end) {
  acked_end = std::max(acked_end, end);
  // A truncate may have come between: the write is the later of the two then.
  size = std::max(size, end);
  written_end = std::max(written_end, end);
}

void OpenFile::note_settled(const WriteMark& mark) {
  settled_generation = std::max(settled_generation, mark.generation);
  settled_bytes = std::max(settled_bytes, mark.bytes);
  if (unsettled()) return;
  acked_end = 0;
  written_end = 0;
  mtime_ns = 0;
  made_holes = false;
}

// A run in flight now that was made before the truncate may be acknowledged after it; note_acked
// then takes it for the later of the two. Callers flush before they truncate, so there is none
// unless the application writes and truncates at the same time.
void OpenFile::note_truncated(uint64_t new_size, uint64_t version) {
  if (version < attr_version) return;  // somebody's later change is known here already
  attr_version = version;
  attr_size = new_size;
  durable_size.reset();
  attr_mtime_ns = 0;
  size_checked_ns = now_ns();
  dirty.trim(new_size);
  size = new_size;
  written_end = std::min(written_end, new_size);
  acked_end = std::min(acked_end, new_size);
}

void OpenFile::fail(const Status& status) {
  for (Handle* handle : handles) {
    if (handle->error.ok()) handle->error = status;
    handle->refuse_next = true;
  }
}

Handle::Handle(std::shared_ptr<OpenFile> opened, uint32_t flags, std::string session)
    : file(std::move(opened)), flags(flags), opened_ns(now_ns()), session(std::move(session)) {
  std::lock_guard lock(file->mutex);
  file->handles.push_back(this);
}

Handle::~Handle() {
  std::lock_guard lock(file->mutex);
  std::erase(file->handles, this);
}

bool Handle::readable() const { return (flags & O_ACCMODE) != O_WRONLY; }
bool Handle::writable() const { return (flags & O_ACCMODE) != O_RDONLY; }
bool Handle::appends() const { return (flags & O_APPEND) != 0; }
bool Handle::direct() const { return (flags & O_DIRECT) != 0; }
bool Handle::syncs() const { return (flags & (O_SYNC | O_DSYNC)) != 0; }
bool Handle::through() const { return (flags & (O_DIRECT | O_SYNC | O_DSYNC)) != 0; }

std::shared_ptr<OpenFile> FileTable::open(uint64_t inode,
                                          const std::shared_ptr<Placement>& placement) {
  std::lock_guard lock(mutex_);
  std::weak_ptr<OpenFile>& slot = files_[inode];
  auto file = slot.lock();
  if (!file) slot = file = std::make_shared<OpenFile>(inode, placement);
  if (files_.size() >= prune_at_) {
    std::erase_if(files_, [](const auto& entry) { return entry.second.expired(); });
    prune_at_ = std::max<size_t>(64, 2 * files_.size());
  }
  return file;
}

std::shared_ptr<OpenFile> FileTable::find(uint64_t inode) {
  std::lock_guard lock(mutex_);
  auto found = files_.find(inode);
  return found == files_.end() ? nullptr : found->second.lock();
}

std::vector<std::shared_ptr<OpenFile>> FileTable::all() {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<OpenFile>> files;
  for (auto& [inode, weak] : files_) {
    if (auto file = weak.lock()) files.push_back(std::move(file));
  }
  return files;
}

}  // namespace fs3::client
