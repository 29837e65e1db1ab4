#include "usrbio/served_ring.h"

#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace fs3::usrbio {
namespace {

// One read of the client library: bounds what a single I/O of a terabyte allocates here.
constexpr size_t kReadPieceBytes = 64u << 20;
// From here on a read is worth a hop to another thread and back.
constexpr size_t kSpreadBytesMin = 64u << 10;
// One write of the client library, and so the copy of it.
constexpr size_t kWritePieceBytes = 4u << 20;
// I/Os under way of a ring while there are some of a higher priority.
constexpr size_t kNormalWindow = 64;
constexpr size_t kLowWindow = 8;

int priority_index(int32_t priority) { return priority < 0 ? 0 : priority == 0 ? 1 : 2; }

// What lies in shared memory is read once: a compiler may not look at it again.
Request copy_once(const Request& shared) {
  Request copy;
  const auto* from = reinterpret_cast<const volatile uint64_t*>(&shared);
  auto* to = reinterpret_cast<uint64_t*>(&copy);
  for (size_t i = 0; i < sizeof(Request) / sizeof(uint64_t); ++i) to[i] = from[i];
  return copy;
}

IovId id_of(const Request& request) {
  IovId id;
  std::copy_n(request.iov, id.size(), id.begin());
  return id;
}

}  // namespace

bool IovTable::add(const IovId& id, uint32_t uid, std::shared_ptr<SharedMemory> memory) {
  std::lock_guard lock(mutex_);
  bool added = entries_.emplace(id, Entry{uid, std::move(memory)}).second;
  version_.fetch_add(1, std::memory_order_release);
  return added;
}

void IovTable::remove(const IovId& id) {
  std::lock_guard lock(mutex_);
  entries_.erase(id);
  version_.fetch_add(1, std::memory_order_release);
}

std::shared_ptr<SharedMemory> IovTable::find(const IovId& id, uint32_t uid) const {
  std::lock_guard lock(mutex_);
  auto found = entries_.find(id);
  if (found == entries_.end() || (uid != 0 && found->second.uid != uid)) return nullptr;
  return found->second.memory;
}

void CopyWindow::enter(size_t bytes, Function<void()> go) {
  if (!waiting_.empty() || bytes > free_) {
    waiting_.push_back({bytes, std::move(go)});
    return;
  }
  free_ -= bytes;
  go();
}

void CopyWindow::leave(size_t bytes) {
  free_ += bytes;
  while (!waiting_.empty() && waiting_.front().bytes <= free_) {
    Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    free_ -= next.bytes;
    next.go();
  }
}

// One I/O under way, piece by piece.
struct ServedRing::Io {
  uint32_t index;
  Request request;
  std::shared_ptr<SharedMemory> memory;
  uint64_t done = 0;
  std::byte* place() const { return memory->data() + request.iov_offset + done; }
  uint64_t left() const { return request.length - done; }
};

Result<std::shared_ptr<ServedRing>> ServedRing::create(Parts parts, Surroundings around) {
  auto refuse = [&](uint32_t code, const char* detail) {
    for (int fd : {parts.bell, parts.event}) {
      if (fd >= 0) ::close(fd);
    }
    return Status(code, "usrbio/ring", detail);
  };
  if (parts.memory->size() < kHeadBytes) return refuse(EINVAL, "too small for a ring");
  const auto& shared = *reinterpret_cast<const volatile RingHead*>(parts.memory->data());
  uint64_t magic = shared.magic;
  uint32_t version = shared.version, entries = shared.entries;
  if (magic != kRingMagic) return refuse(EINVAL, "this is no ring");
  if (version != kRingVersion) {
    return refuse(EPROTO, "the ring is of another version than this mount: use the library of it");
  }
  if (entries == 0 || entries > kEntriesMax || ring_bytes(entries) > parts.memory->size()) {
    return refuse(EINVAL, "more entries than there is memory for");
  }
  const RingHead& head = *reinterpret_cast<const RingHead*>(parts.memory->data());
  return std::shared_ptr<ServedRing>(new ServedRing(std::move(parts), around, head, entries));
}

ServedRing::ServedRing(Parts parts, Surroundings around, const RingHead& head, uint32_t entries)
    : parts_(std::move(parts)),
      around_(around),
      view_(parts_.memory->data(), entries),
      for_read_(head.for_read != 0),
      refuse_holes_((head.flags & kForbidHoles) != 0),
      priority_(priority_index(head.priority)),
      busy_(entries) {}

ServedRing::~ServedRing() {
  ::close(parts_.bell);
  ::close(parts_.event);
}

void ServedRing::start(Function<void()> gone) {
  if (ended_) return;
  gone_ = std::move(gone);
  Status status = around_.reactor.add_fd(parts_.bell, EPOLLIN, this);
  if (!status.ok()) return end(status.to_errno());
  attached_ = true;
  view_.for_each(State::kTaken, [&](uint32_t i) { take(i); });
  view_.head().ended.store(0, std::memory_order_release);
  look();
  schedule();
}

void ServedRing::detach() {
  if (!std::exchange(attached_, false)) return;
  around_.reactor.remove_fd(parts_.bell);
}

void ServedRing::pause() {
  paused_ = true;
  detach();
}

void ServedRing::end(int error) {
  if (std::exchange(ended_, true)) return;
  detach();
  view_.head().ended.store(error, std::memory_order_release);
  view_.head().completed.fetch_add(1);
  wake();
}

void ServedRing::when_idle(Function<void()> then) {
  if (in_flight_ == 0) return then();
  idle_waiters_.push_back(std::move(then));
}

void ServedRing::on_events(uint32_t events) {
  auto self = shared_from_this();
  std::array<char, 4096> rings;
  ssize_t got = ::read(parts_.bell, rings.data(), rings.size());
  // 0: nobody has the other end any more. The last byte may have come with it.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && got <= 0) {
    end(ESHUTDOWN);
    auto gone = std::move(gone_);
    if (gone) gone();
    return;
  }
  look();
  schedule();
}

// Takes what is ready, in the order of submission.
void ServedRing::look() {
  if (ended_ || paused_) return;
  if (parts_.memory->lost()) return end(EFAULT);
  size_t room = window();
  if (in_flight_ >= room) return;
  std::vector<std::pair<uint64_t, uint32_t>> ready;
  view_.for_each(State::kReady, [&](uint32_t i) {
    if (!busy_[i]) ready.emplace_back(view_.slot(i).request.sequence, i);
  });
  std::sort(ready.begin(), ready.end());
  ready.resize(std::min(ready.size(), room - in_flight_));
  for (auto [sequence, i] : ready) take(i);
}

size_t ServedRing::window() const {
  int64_t above = 0;
  for (int i = 0; i < priority_; ++i) above += around_.load[static_cast<size_t>(i)].load();
  if (above <= 0) return view_.entries();
  return priority_ == 1 ? kNormalWindow : kLowWindow;
}

void ServedRing::take(uint32_t index) {
  busy_[index] = true;
  ++in_flight_;
  around_.load[static_cast<size_t>(priority_)].fetch_add(1, std::memory_order_relaxed);
  view_.state(index).store(static_cast<uint8_t>(State::kTaken), std::memory_order_release);
  begin(index);
}

void ServedRing::begin(uint32_t index) {
  auto io = std::make_shared<Io>();
  io->index = index;
  io->request = copy_once(view_.slot(index).request);
  if (int error = check(io->request, &io->memory)) return complete(index, -error);
  for_read_ ? read_on(std::move(io)) : write_on(std::move(io));
}

int ServedRing::check(const Request& request, std::shared_ptr<SharedMemory>* memory) {
  if (request.length == 0) return EINVAL;
  *memory = memory_of(request);
  if (*memory == nullptr || (*memory)->lost()) return EFAULT;
  uint64_t size = (*memory)->size();
  if (request.iov_offset > size || request.length > size - request.iov_offset) return EFAULT;
  if (request.file_offset > INT64_MAX || request.length > INT64_MAX - request.file_offset) {
    return for_read_ ? EINVAL : EFBIG;
  }
  return 0;
}

std::shared_ptr<SharedMemory> ServedRing::memory_of(const Request& request) {
  // Read first: a change after it is seen at the next look.
  uint64_t version = around_.iovs.version();
  if (version != known_version_) {
    known_.clear();
    known_version_ = version;
  }
  IovId id = id_of(request);
  auto found = known_.find(id);
  if (found != known_.end()) return found->second;
  auto memory = around_.iovs.find(id, parts_.uid);
  if (memory != nullptr) known_.emplace(id, memory);
  return memory;
}

void ServedRing::read_on(std::shared_ptr<Io> io) {
  size_t length = std::min<uint64_t>(io->left(), kReadPieceBytes);
  size_t turn = length < kSpreadBytesMin ? 0 : turn_++ % around_.reactors.size();
  Reactor& reactor = length < kSpreadBytesMin ? around_.reactor : *around_.reactors[turn];
  if (reactor.on_thread()) return read_piece(io, length);
  reactor.post(
      [self = shared_from_this(), io = std::move(io), length] { self->read_piece(io, length); });
}

// On any reactor.
void ServedRing::read_piece(const std::shared_ptr<Io>& io, size_t length) {
  const Request& request = io->request;
  around_.files.ring_read({request.file, request.key, parts_.uid}, request.file_offset + io->done,
                          io->place(), length, refuse_holes_,
                          [self = shared_from_this(), io, length](Result<size_t> got) {
                            self->advance(io, length, got);
                          });
}

void ServedRing::write_on(std::shared_ptr<Io> io) {
  size_t length = std::min<uint64_t>(io->left(), kWritePieceBytes);
  around_.copies.enter(length, [self = shared_from_this(), io, length]() mutable {
    self->write_piece(std::move(io), length);
  });
}

// The bytes are copied: what is sent has a checksum, and the program may change its memory at any
// time. The copy is what the client library keeps until the chains have it.
void ServedRing::write_piece(std::shared_ptr<Io> io, size_t length) {
  Buffer data = Buffer::copy_of(io->place(), length);
  auto written = [self = shared_from_this(), io, length](Result<size_t> result) mutable {
    Reactor& reactor = self->around_.reactor;
    auto then = [self, io = std::move(io), length, result = std::move(result)]() mutable {
      self->around_.copies.leave(length);
      self->advance(std::move(io), length, result);
    };
    reactor.on_thread() ? then() : reactor.post(std::move(then));
  };
  if (io->memory->lost()) return written(Status(EFAULT, "usrbio/write", "the memory was cut"));
  const Request& request = io->request;
  around_.files.ring_write({request.file, request.key, parts_.uid}, request.file_offset + io->done,
                           std::move(data), std::move(written));
}

void ServedRing::advance(std::shared_ptr<Io> io, size_t wanted, const Result<size_t>& result) {
  if (!around_.reactor.on_thread()) {
    return around_.reactor.post(
        [self = shared_from_this(), io = std::move(io), wanted, result]() mutable {
          self->advance(std::move(io), wanted, result);
        });
  }
  if (!result.ok()) return complete(io->index, -result.status().to_errno());
  if (io->memory->lost()) return complete(io->index, -EFAULT);
  io->done += result.value();
  bool end = result.value() < wanted || io->left() == 0;
  if (!end) return for_read_ ? read_on(std::move(io)) : write_on(std::move(io));
  bool cut = !for_read_ && io->left() > 0;  // a write is whole or an error
  complete(io->index, cut ? -EIO : static_cast<int64_t>(io->done));
}

void ServedRing::complete(uint32_t index, int64_t result) {
  FS3_CHECK(busy_[index] && in_flight_ > 0);
  view_.slot(index).result = result;
  view_.state(index).store(static_cast<uint8_t>(State::kDone), std::memory_order_release);
  busy_[index] = false;
  --in_flight_;
  around_.load[static_cast<size_t>(priority_)].fetch_sub(1, std::memory_order_relaxed);
  ++unannounced_;
  schedule();
}

// Once per round: many completions are one wake-up.
void ServedRing::schedule() {
  if (std::exchange(scheduled_, true)) return;
  auto then = [self = shared_from_this()] { self->round_ended(); };
  // Deferred functions run until there are none: a program that always asks for something that
  // fails at once would keep everybody else waiting.
  ending_round_ ? around_.reactor.post(std::move(then)) : around_.reactor.defer(std::move(then));
}

void ServedRing::round_ended() {
  scheduled_ = false;
  ending_round_ = true;
  announce();
  if (!ended_ && !paused_) {
    view_.head().bell_wanted.store(1);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    look();
  }
  ending_round_ = false;
  if (in_flight_ > 0) return;
  for (auto& waiter : std::exchange(idle_waiters_, {})) waiter();
}

void ServedRing::announce() {
  if (unannounced_ == 0) return;
  RingHead& head = view_.head();
  uint32_t completed = head.completed.fetch_add(unannounced_) + std::exchange(unannounced_, 0);
  uint64_t at = head.wake_at.load();
  while (at != kNobody && static_cast<int32_t>(completed - static_cast<uint32_t>(at)) >= 0) {
    // Only what was seen is taken back: another value belongs to somebody who came later.
    if (head.wake_at.compare_exchange_weak(at, kNobody)) return wake();
  }
  if (head.event_wanted.load() != 0) wake();
}

void ServedRing::wake() {
  RingHead& head = view_.head();
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&head.completed), FUTEX_WAKE, INT_MAX, nullptr,
          nullptr, 0);
  if (head.event_wanted.load() == 0 || head.event_pending.exchange(1) != 0) return;
  ssize_t ignored = ::write(parts_.event, "", 1);  // full: it is readable
  (void)ignored;
}

}  // namespace fs3::usrbio
