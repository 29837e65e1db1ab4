#include "fuse/handover.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace fs3::fuse {

namespace {

constexpr uint64_t kMagic = 0x31764f4833534600;  // grows with the layout
constexpr size_t kPathMax = 4096;
constexpr size_t kIdBytes = 16;

Status failed(const char* what) {
  return Status(static_cast<uint32_t>(errno), "fuse/handover",
                std::string(what) + ": " + std::strerror(errno));
}

}  // namespace

struct Handover::Head {
  std::atomic<uint64_t> magic;
  uint64_t generation;
  fuse_init_out init;
  uint32_t kernel_minor;
  uint32_t resends;
  uint64_t root_inode;
  std::array<char, kPathMax> mountpoint;
  Secret secret;  // zeros: the process before was of a version without it
};

struct Handover::HandleRecord {
  std::atomic<uint64_t> handle;  // 0: nothing here
  std::atomic<uint64_t> inode;
  std::atomic<uint32_t> flags;
  std::atomic<uint32_t> written;      // counts writes
  std::atomic<uint32_t> settled;      // `written` when the last settlement that succeeded began
  std::atomic<uint32_t> half_append;  // 1: more of the same write(2) follows
};

struct Handover::CallRecord {
  std::atomic<uint64_t> unique;  // 0: nothing here
  std::atomic<uint64_t> request_id;
  std::array<char, kIdBytes> client_id;
};

namespace {

constexpr size_t kHeadBytes = 8192;
constexpr size_t kHandleBytes = 32;
constexpr size_t kCallBytes = 32;
constexpr size_t kBytes =
    kHeadBytes + Handover::kHandlesMax * kHandleBytes + Handover::kCallsMax * kCallBytes;

std::byte* at(void* memory, size_t offset) { return static_cast<std::byte*>(memory) + offset; }

}  // namespace

Handover::Handover(int fd, void* memory)
    : fd_(fd),
      head_(reinterpret_cast<Head*>(memory)),
      handles_(reinterpret_cast<HandleRecord*>(at(memory, kHeadBytes))),
      calls_(reinterpret_cast<CallRecord*>(
          at(memory, kHeadBytes + size_t{kHandlesMax} * kHandleBytes))) {
  static_assert(sizeof(Head) <= kHeadBytes);
  static_assert(sizeof(HandleRecord) == kHandleBytes && sizeof(CallRecord) == kCallBytes);
  static_assert(std::atomic<uint64_t>::is_always_lock_free);
}

Handover::~Handover() {
  munmap(head_, kBytes);
  close(fd_);
}

Result<std::shared_ptr<Handover>> Handover::create() {
  int fd = memfd_create("fs3-handover", MFD_CLOEXEC);
  if (fd < 0) return failed("memfd_create");
  // Pages that nobody touched cost nothing.
  void* memory = ftruncate(fd, kBytes) == 0
                     ? mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                     : MAP_FAILED;
  if (memory == MAP_FAILED) {
    Status status = failed("memory for a takeover");
    close(fd);
    return status;
  }
  std::shared_ptr<Handover> handover(new Handover(fd, memory));
  handover->make_secret();
  return handover;
}

void Handover::make_secret() {
  FS3_CHECK(getrandom(head_->secret.data(), head_->secret.size(), 0) ==
            static_cast<ssize_t>(head_->secret.size()));
}

Handover::Secret Handover::secret() const { return head_->secret; }

Result<std::shared_ptr<Handover>> Handover::adopt(int fd) {
  int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (own < 0) return failed("the descriptor of the process before");
  struct stat info{};
  bool sized = fstat(own, &info) == 0 && info.st_size == static_cast<off_t>(kBytes);
  void* memory =
      sized ? mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, own, 0) : MAP_FAILED;
  if (memory == MAP_FAILED) {
    close(own);
    return Status(EPROTO, "fuse/handover", "the memory of the process before has another size");
  }
  std::shared_ptr<Handover> handover(new Handover(own, memory));
  if (handover->head_->magic.load(std::memory_order_acquire) != kMagic) {
    return Status(EPROTO, "fuse/handover",
                  "the process before had not mounted yet, or was of another version");
  }
  handover->inherit();
  return handover;
}

void Handover::inherit() {
  generation_ = ++head_->generation;
  if (head_->secret == Secret{}) make_secret();
  std::vector<uint32_t> used;
  for (uint32_t slot = 0; slot < kHandlesMax; ++slot) {
    HandleRecord& record = handles_[slot];
    uint64_t handle = record.handle.load(std::memory_order_acquire);
    if (handle == 0) continue;
    used.push_back(slot);
    bool unsettled = record.written.load() != record.settled.load();
    inherited_.push_back({slot, handle, record.inode.load(), record.flags.load(), unsettled,
                          record.half_append.load() != 0});
  }
  free_handles_.inherit(used);
  used.clear();
  for (uint32_t slot = 0; slot < kCallsMax; ++slot) {
    CallRecord& record = calls_[slot];
    uint64_t unique = record.unique.load(std::memory_order_acquire);
    if (unique == 0) continue;
    used.push_back(slot);
    std::string client_id(record.client_id.data(), kIdBytes);
    earlier_calls_[unique] = {slot, {std::move(client_id), record.request_id.load()}};
  }
  free_calls_.inherit(used);
}

void Handover::set_connection(const Connection& connection) {
  FS3_CHECK(connection.mountpoint.size() < kPathMax);
  head_->init = connection.init;
  head_->kernel_minor = connection.kernel_minor;
  head_->resends = connection.resends;
  head_->root_inode = connection.root_inode;
  std::copy_n(connection.mountpoint.c_str(), connection.mountpoint.size() + 1,
              head_->mountpoint.begin());
  head_->magic.store(kMagic, std::memory_order_release);
}

Handover::Connection Handover::connection() const {
  Connection connection;
  connection.init = head_->init;
  connection.kernel_minor = head_->kernel_minor;
  connection.resends = head_->resends != 0;
  connection.root_inode = head_->root_inode;
  auto end = std::find(head_->mountpoint.begin(), head_->mountpoint.end(), '\0');
  connection.mountpoint.assign(head_->mountpoint.begin(), end);
  return connection;
}

const Handover::CallName* Handover::earlier_call(uint64_t unique) const {
  auto found = earlier_calls_.find(unique & ~kUniqueResend);
  return found == earlier_calls_.end() ? nullptr : &found->second.name;
}

uint32_t Handover::note_open(uint64_t handle, uint64_t inode, uint32_t flags) {
  uint32_t slot = free_handles_.take();
  if (slot == kNone) return kNone;
  HandleRecord& record = handles_[slot];
  record.inode.store(inode, std::memory_order_relaxed);
  record.flags.store(flags, std::memory_order_relaxed);
  record.written.store(0, std::memory_order_relaxed);
  record.settled.store(0, std::memory_order_relaxed);
  record.half_append.store(0, std::memory_order_relaxed);
  record.handle.store(handle, std::memory_order_release);
  return slot;
}

void Handover::note_closed(uint32_t slot) {
  if (slot == kNone) return;
  handles_[slot].handle.store(0, std::memory_order_release);
  free_handles_.give(slot);
}

void Handover::note_written(uint32_t slot) {
  if (slot != kNone) handles_[slot].written.fetch_add(1, std::memory_order_release);
}

void Handover::note_piece(uint32_t slot, bool more_follows) {
  if (slot == kNone) return;
  std::atomic<uint32_t>& half = handles_[slot].half_append;
  uint32_t now = more_follows ? 1 : 0;
  if (half.load(std::memory_order_relaxed) != now) half.store(now, std::memory_order_release);
}

uint32_t Handover::written(uint32_t slot) const {
  return slot == kNone ? 0 : handles_[slot].written.load(std::memory_order_acquire);
}

void Handover::note_settled(uint32_t slot, uint32_t written) {
  if (slot != kNone) handles_[slot].settled.store(written, std::memory_order_release);
}

uint32_t Handover::begin_call(uint64_t unique, const CallName& name) {
  FS3_CHECK(name.client_id.size() == kIdBytes);
  unique &= ~kUniqueResend;
  if (auto found = earlier_calls_.find(unique); found != earlier_calls_.end()) {
    return found->second.slot;
  }
  uint32_t slot = free_calls_.take();
  if (slot == kNone) return kNone;
  CallRecord& record = calls_[slot];
  record.request_id.store(name.request_id, std::memory_order_relaxed);
  std::copy_n(name.client_id.begin(), kIdBytes, record.client_id.begin());
  record.unique.store(unique, std::memory_order_release);
  return slot;
}

void Handover::end_earlier_call(uint64_t unique) {
  auto found = earlier_calls_.find(unique & ~kUniqueResend);
  FS3_CHECK(found != earlier_calls_.end());
  end_call(found->second.slot);
}

void Handover::end_call(uint32_t slot) {
  if (slot == kNone) return;
  calls_[slot].unique.store(0, std::memory_order_release);
  free_calls_.give(slot);
}

uint32_t Handover::Free::take() {
  std::lock_guard lock(mutex_);
  if (!free_.empty()) {
    uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  return untouched_ == size_ ? kNone : untouched_++;
}

void Handover::Free::give(uint32_t slot) {
  std::lock_guard lock(mutex_);
  free_.push_back(slot);
}

void Handover::Free::inherit(const std::vector<uint32_t>& used) {
  std::lock_guard lock(mutex_);
  for (uint32_t slot : used) {
    for (; untouched_ < slot; ++untouched_) free_.push_back(untouched_);
    untouched_ = slot + 1;
  }
}

}  // namespace fs3::fuse
