#include "usrbio/api/ring_client.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>
#include <vector>

#include "usrbio/api/names.h"

namespace fs3::usrbio {
namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;
// A waiting program asks this often whether its ring is served: the mount may have been killed.
constexpr int64_t kAskNs = kNsPerSecond;

int64_t wall_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

// INT64_MAX: without end. Whatever a program passes is a time: relative ones and those of another
// clock are long over.
int64_t deadline_of(const timespec* abs_timeout) {
  if (abs_timeout == nullptr) return INT64_MAX;
  if (abs_timeout->tv_sec < 0) return 0;
  if (abs_timeout->tv_sec >= INT64_MAX / kNsPerSecond / 2) return INT64_MAX;
  int64_t nanoseconds = std::clamp<int64_t>(abs_timeout->tv_nsec, 0, 10 * kNsPerSecond);
  return abs_timeout->tv_sec * kNsPerSecond + nanoseconds;
}

void futex_wait_until(std::atomic<uint32_t>& word, uint32_t seen, int64_t until_ns) {
  timespec until{until_ns / kNsPerSecond, until_ns % kNsPerSecond};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME,
          seen, &until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

int make_fifo(const std::string& path) {
  if (mkfifo(path.c_str(), 0600) != 0) return -errno;
  // For both directions: writing never ends in SIGPIPE, whoever is at the other end.
  int fd = open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

}  // namespace

int RingClient::make_files(const std::string& name, const Options& options) {
  bytes_ = ring_bytes(options.entries);
  int file = make_shared_file(name, bytes_);
  if (file < 0) return file;
  memory_ = map_shared(file, bytes_, options.numa);
  int error = memory_ == nullptr ? -errno : 0;
  close(file);
  if (error != 0) return error;
  view_ = RingView(memory_, options.entries);
  RingHead& head = view_.head();
  head.magic = kRingMagic;
  head.version = kRingVersion;
  head.entries = options.entries;
  head.flags = options.flags;
  head.priority = options.priority;
  head.for_read = options.for_read;
  head.io_depth = options.io_depth;
  head.timeout_ms = options.timeout_ms;
  head.bell_wanted = 1;
  std::string path = kShmDirectory + name;
  if ((bell_ = make_fifo(path + kBellSuffix)) < 0) return std::exchange(bell_, -1);
  if ((event_ = make_fifo(path + kEventSuffix)) < 0) return std::exchange(event_, -1);
  return 0;
}

int RingClient::create(const char* mount_point, const Options& options,
                       std::unique_ptr<RingClient>* made) {
  std::unique_ptr<RingClient> ring(new RingClient);
  int iovs = open_iovs(mount_point);
  if (iovs < 0) return iovs;
  ring->iovs_ = iovs;
  ring->maker_ = getpid();
  new_uuid(ring->id_);
  std::string uuid = uuid_text(ring->id_), name = "fs3-ring-" + uuid;
  std::string path = kShmDirectory + name, link = uuid + kRingSuffix;
  int error = ring->make_files(name, options);
  if (error == 0) error = add_name(iovs, link, path);
  if (error == 0) ring->link_ = link;
  // The mount has what it needs; so nothing is left behind when this process is killed.
  for (const char* suffix : {"", kBellSuffix, kEventSuffix}) unlink((path + suffix).c_str());
  if (error == 0) *made = std::move(ring);
  return error;
}

RingClient::~RingClient() {
  if (!link_.empty() && maker_ == getpid()) remove_name(iovs_, link_);
  if (memory_ != nullptr) munmap(memory_, bytes_);
  for (int fd : {iovs_, bell_, event_}) {
    if (fd >= 0) close(fd);
  }
}

int RingClient::prepare(Request request, uint64_t userdata) {
  uint32_t entries = view_.entries();
  uint32_t from = search_from_.load(std::memory_order_relaxed);
  for (uint32_t tried = 0; tried < entries; ++tried) {
    uint32_t i = (from + tried) % entries;
    auto expected = static_cast<uint8_t>(State::kFree);
    auto& state = view_.state(i);
    if (state.load(std::memory_order_relaxed) != expected ||
        !state.compare_exchange_strong(expected, static_cast<uint8_t>(State::kPreparing))) {
      continue;
    }
    search_from_.store((i + 1) % entries, std::memory_order_relaxed);
    Slot& slot = view_.slot(i);
    request.sequence = view_.head().sequence.fetch_add(1, std::memory_order_relaxed);
    slot.request = request;
    slot.userdata = userdata;
    state.store(static_cast<uint8_t>(State::kReady), std::memory_order_release);
    return static_cast<int>(i);
  }
  return -EAGAIN;
}

int RingClient::submit() {
  if (int error = ended(false)) return error;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  auto& wanted = view_.head().bell_wanted;
  if (wanted.load() != 0 && wanted.exchange(0) != 0) {
    ssize_t ignored = write(bell_, "", 1);  // full: it is ringing
    (void)ignored;
  }
  return 0;
}

int RingClient::count_done() const {
  int count = 0;
  view_.for_each(State::kDone, [&](uint32_t) { ++count; });
  return count;
}

int RingClient::reap(hf3fs_cqe* results, int results_max) {
  std::vector<std::pair<uint64_t, uint32_t>> done;  // in the order of submission
  view_.for_each(State::kDone,
                 [&](uint32_t i) { done.emplace_back(view_.slot(i).request.sequence, i); });
  std::sort(done.begin(), done.end());
  int taken = 0;
  for (auto [sequence, i] : done) {
    if (taken == results_max) break;
    auto expected = static_cast<uint8_t>(State::kDone);
    auto& state = view_.state(i);
    // Another thread may have been faster.
    if (!state.compare_exchange_strong(expected, static_cast<uint8_t>(State::kReaping))) continue;
    const Slot& slot = view_.slot(i);
    const void* userdata = reinterpret_cast<const void*>(slot.userdata);
    results[taken++] = {static_cast<int32_t>(i), 0, slot.result, userdata};
    state.store(static_cast<uint8_t>(State::kFree), std::memory_order_release);
  }
  return taken;
}

int RingClient::wait(hf3fs_cqe* results, int results_max, int results_min,
                     const timespec* abs_timeout) {
  results_min = std::clamp(results_min, 0, results_max);
  int64_t deadline_ns = deadline_of(abs_timeout);
  RingHead& head = view_.head();
  int got = 0;
  bool ask = false;
  drain_event();
  while (true) {
    uint32_t seen = head.completed.load();
    int missing = results_min - got;
    int error = ended(ask);
    bool over = error != 0 || (missing > 0 && wall_ns() >= deadline_ns);
    int done = count_done();
    if (done >= missing || over) {
      got += reap(results + got, results_max - got);
      // Another thread may have taken what was there.
      if (got >= results_min || over) {
        note_event_left();
        return got == 0 && error != 0 ? error : got;
      }
      continue;
    }
    // Whoever wants to be woken earliest decides; the others then say so again.
    uint64_t mine = kSomebody | static_cast<uint32_t>(seen + (missing - done));
    uint64_t others = head.wake_at.load();
    while (others == kNobody ||
           static_cast<int32_t>(static_cast<uint32_t>(mine) - static_cast<uint32_t>(others)) < 0) {
      if (head.wake_at.compare_exchange_weak(others, mine)) break;
    }
    int64_t slice_ns = wall_ns() + kAskNs;
    if (head.completed.load() == seen) {
      futex_wait_until(head.completed, seen, std::min(deadline_ns, slice_ns));
    }
    ask = head.completed.load() == seen && wall_ns() >= slice_ns;
  }
}

int RingClient::ended(bool ask) const {
  if (int error = view_.head().ended.load(std::memory_order_acquire)) {
    return error > 0 && error < 4096 ? -error : -EIO;
  }
  if (!ask) return 0;
  struct stat info{};
  if (fstatat(iovs_, link_.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) return 0;
  // Nobody answers, or whoever answers now does not know this ring.
  return errno == EINTR || errno == ENOMEM ? 0 : -ENOTCONN;
}

int RingClient::event_fd() {
  if (view_.head().event_wanted.exchange(1) == 0) note_event_left();
  return event_;
}

void RingClient::drain_event() {
  RingHead& head = view_.head();
  if (head.event_wanted.load(std::memory_order_relaxed) == 0) return;
  char bytes[64];
  while (read(event_, bytes, sizeof bytes) == sizeof bytes) {
  }
  // Whoever completes from here on writes again; what was completed before is seen by this wait.
  head.event_pending.store(0);
}

// What this wait has left there makes the descriptor readable again.
void RingClient::note_event_left() {
  RingHead& head = view_.head();
  if (head.event_wanted.load(std::memory_order_relaxed) == 0 || count_done() == 0) return;
  if (head.event_pending.exchange(1) != 0) return;
  ssize_t ignored = write(event_, "", 1);
  (void)ignored;
}

}  // namespace fs3::usrbio
