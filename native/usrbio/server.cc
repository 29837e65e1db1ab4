#include "usrbio/server.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "base/check.h"

namespace fs3::usrbio {
namespace {

constexpr const char* kWhere = "usrbio/register";
constexpr size_t kCopyBytes = 64u << 20;  // of a reactor's writes
constexpr size_t kUuidSize = 36;
constexpr std::string_view kOwnIov = "fs3-iov-";  // how the library names its files

Status failed(const char* what) {
  return Status(static_cast<uint32_t>(errno), kWhere, std::string(what) + ": " + strerror(errno));
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// 8-4-4-4-12 hexadecimal digits, lower case.
std::optional<IovId> parse_uuid(std::string_view text) {
  if (text.size() != kUuidSize) return std::nullopt;
  IovId id{};
  size_t digits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    bool hyphen = i == 8 || i == 13 || i == 18 || i == 23;
    if (hyphen != (text[i] == '-')) return std::nullopt;
    if (hyphen) continue;
    int digit = hex_digit(text[i]);
    if (digit < 0) return std::nullopt;
    id[digits / 2] = static_cast<uint8_t>(id[digits / 2] << 4 | digit);
    ++digits;
  }
  return id;
}

bool is_block_size(std::string_view suffix) {
  if (!suffix.starts_with(".b")) return false;
  suffix.remove_prefix(2);
  uint64_t value = 0;
  auto [end, error] = std::from_chars(suffix.data(), suffix.data() + suffix.size(), value);
  return error == std::errc() && end == suffix.data() + suffix.size();
}

bool is_ring(std::string_view name) { return name.substr(kUuidSize) == kRingSuffix; }

void close_all(const std::vector<int>& descriptors) {
  for (int fd : descriptors) ::close(fd);
}

// The kernel tells the thread that called; what lives and dies is its process.
uint32_t process_of(uint32_t thread) {
  std::ifstream status("/proc/" + std::to_string(thread) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Tgid:"))
      return static_cast<uint32_t>(std::strtoul(&line[5], nullptr, 10));
  }
  return thread;
}

}  // namespace

// What the rings of one reactor share.
struct RingServer::Lane {
  explicit Lane(Reactor& on) : reactor(on), copies(kCopyBytes) {}
  Reactor& reactor;
  CopyWindow copies;
};

// Tells when a process ends, by its pidfd.
class RingServer::Watch final : public Reactor::FdHandler,
                                public std::enable_shared_from_this<Watch> {
 public:
  Watch(Reactor& reactor, int fd, Function<void()> ended)
      : reactor_(reactor), fd_(fd), ended_(std::move(ended)) {}
  ~Watch() override {
    if (fd_ >= 0) ::close(fd_);
  }
  // On the reactor, like the next two.
  void start() {
    if (!stopped_ && !reactor_.add_fd(fd_, EPOLLIN, this).ok()) stopped_ = true;
  }
  void stop() {
    if (!std::exchange(stopped_, true) && fd_ >= 0) reactor_.remove_fd(fd_);
  }
  void on_events(uint32_t) override {
    auto self = shared_from_this();
    stop();
    ended_();
  }
  std::atomic<bool> over{false};

 private:
  Reactor& reactor_;
  const int fd_;
  bool stopped_ = false;
  Function<void()> ended_;
};

RingServer::RingServer(std::vector<Reactor*> reactors, RingFiles& files, RingKeeper* keeper,
                       std::string shm_directory)
    : files_(files),
      keeper_(keeper),
      shm_(::open(shm_directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)),
      shm_prefix_(shm_directory + "/"),
      reactors_(std::move(reactors)) {
  FS3_CHECK(!reactors_.empty());
  for (Reactor* reactor : reactors_) lanes_.push_back(std::make_unique<Lane>(*reactor));
}

RingServer::~RingServer() {
  end(ENOTCONN);
  alive_->store(false);
  if (shm_ >= 0) ::close(shm_);
}

// ---- registering

// A file or FIFO below the directory, never through a symlink or out of it.
Result<int> RingServer::open_shared(std::string_view target, Owner owner, uint32_t type,
                                    int flags) {
  if (!target.starts_with(shm_prefix_) || target.size() == shm_prefix_.size()) {
    return Status(EINVAL, kWhere, "the target is not a path below " + shm_prefix_);
  }
  std::string below(target.substr(shm_prefix_.size()));
  open_how how{};
  // Non-blocking, for whatever stands there.
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC | O_NONBLOCK);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  int fd = static_cast<int>(syscall(SYS_openat2, shm_, below.c_str(), &how, sizeof how));
  if (fd < 0) return failed(std::string(target).c_str());
  struct stat info{};
  bool known = fstat(fd, &info) == 0;
  bool right_kind = known && (info.st_mode & S_IFMT) == type;
  bool allowed = owner.uid == 0 || info.st_uid == owner.uid || (info.st_mode & 06) == 06;
  if (right_kind && allowed) return fd;
  ::close(fd);
  if (!right_kind) return Status(EINVAL, kWhere, std::string(target) + " is of another kind");
  return Status(EACCES, kWhere, std::string(target) + " belongs to another user");
}

Result<std::vector<int>> RingServer::open_files(std::string_view name, std::string_view target,
                                                Owner owner) {
  struct Wanted {
    const char* suffix;
    uint32_t type;
    int flags;
  };
  // The bell is only read: the program alone writes, and the end of the file tells that it is gone.
  // Events in both directions: writing to a program that has died must not end in a SIGPIPE.
  std::vector<Wanted> wanted{{"", S_IFREG, O_RDWR}};
  if (is_ring(name)) {
    wanted.push_back({kBellSuffix, S_IFIFO, O_RDONLY});
    wanted.push_back({kEventSuffix, S_IFIFO, O_RDWR});
  }
  std::vector<int> descriptors;
  for (const Wanted& each : wanted) {
    auto fd = open_shared(std::string(target) + each.suffix, owner, each.type, each.flags);
    if (!fd.ok()) {
      close_all(descriptors);
      return fd.status();
    }
    descriptors.push_back(*fd);
  }
  return descriptors;
}

// Takes the descriptors, or closes them.
Result<RingServer::Entry> RingServer::make_entry(const Name& name,
                                                 const std::vector<int>& descriptors) {
  Entry entry;
  entry.name = name;
  struct stat info{};
  bool ring = is_ring(name.name);
  bool sound = descriptors.size() == (ring ? 3u : 1u) && fstat(descriptors[0], &info) == 0;
  auto memory = sound ? SharedMemory::map(descriptors[0], static_cast<size_t>(info.st_size))
                      : Result<std::shared_ptr<SharedMemory>>(
                            Status(EINVAL, kWhere, "descriptors of another kind"));
  if (!memory.ok()) {
    close_all(descriptors);
    return memory.status();
  }
  ::close(descriptors[0]);
  entry.file_inode = info.st_ino;
  if (!ring) {
    entry.iov = parse_uuid(std::string_view(name.name).substr(0, kUuidSize));
    if (iovs_.add(*entry.iov, name.owner.uid, *memory)) return entry;
    return Status(EEXIST, kWhere, "memory of that UUID is registered");
  }
  size_t turn = next_lane_.fetch_add(1, std::memory_order_relaxed);
  Lane& lane = *lanes_[turn % lanes_.size()];
  auto made = ServedRing::create({*memory, descriptors[1], descriptors[2], name.owner.uid},
                                 {lane.reactor, reactors_, files_, iovs_, load_, lane.copies});
  if (!made.ok()) return made.status();
  entry.ring = std::move(made).value();
  return entry;
}

// REQUIRES: mutex_ held, and the name is free.
Status RingServer::enter(Entry made) {
  const Name& name = made.name;
  numbers_[name.number] = name.name;
  next_number_ = std::max(next_number_, name.number + 1);
  watch(name.owner.pid);
  if (made.ring != nullptr) {
    auto gone = [this, alive = alive_, text = name.name, pid = name.owner.pid] {
      if (!alive->load()) return;
      std::lock_guard lock(mutex_);
      drop(text, [] {});
      collect(pid);
    };
    made.ring->reactor().post(
        [ring = made.ring, gone = std::move(gone)]() mutable { ring->start(std::move(gone)); });
  }
  std::string text = name.name;
  entries_[text] = std::move(made);
  return Status();
}

Result<RingServer::Name> RingServer::add(std::string_view name, std::string_view target,
                                         Owner owner) {
  std::string_view suffix = name.substr(std::min(name.size(), kUuidSize));
  bool known = suffix.empty() || suffix == kRingSuffix || is_block_size(suffix);
  if (!known || !parse_uuid(name.substr(0, kUuidSize))) {
    return Status(EINVAL, kWhere, "names here are UUID, UUID.bBYTES and UUID.ring");
  }
  if (owner.pid != 0) owner.pid = process_of(owner.pid);
  std::lock_guard lock(mutex_);
  if (ended_) return Status(ENOTCONN, kWhere, "the mount has ended");
  if (entries_.size() >= kNamesMax) {
    return Status(ENOSPC, kWhere, std::to_string(kNamesMax) + " names are registered");
  }
  if (entries_.contains(name)) return Status(EEXIST, kWhere, "registered already");
  auto descriptors = open_files(name, target, owner);
  if (!descriptors.ok()) return descriptors.status();
  Name whole{std::string(name), std::string(target), next_number_, owner};
  // Duplicates for the keeper: making the entry uses up the descriptors.
  if (keeper_ != nullptr) keeper_->keep(whole, *descriptors);
  auto made = make_entry(whole, *descriptors);
  if (!made.ok()) {
    if (keeper_ != nullptr) keeper_->drop(whole.name);
    return made.status();
  }
  Status status = enter(std::move(made).value());
  if (!status.ok()) return status;
  return whole;
}

Status RingServer::restore(const Name& name, const std::vector<int>& descriptors) {
  std::lock_guard lock(mutex_);
  bool sound = name.name.size() >= kUuidSize && parse_uuid(name.name.substr(0, kUuidSize)) &&
               !entries_.contains(name.name);
  if (!sound) {
    close_all(descriptors);
    return Status(EINVAL, kWhere, name.name + " cannot be what a process before had");
  }
  auto made = make_entry(name, descriptors);
  return made.ok() ? enter(std::move(made).value()) : made.status();
}

// ---- looking

const RingServer::Entry* RingServer::visible(std::string_view name, uint32_t uid) const {
  auto found = entries_.find(name);
  if (found == entries_.end()) return nullptr;
  bool own = uid == 0 || found->second.name.owner.uid == uid;
  return own ? &found->second : nullptr;
}

std::optional<RingServer::Name> RingServer::find(std::string_view name, uint32_t uid) const {
  std::lock_guard lock(mutex_);
  const Entry* entry = visible(name, uid);
  return entry == nullptr ? std::nullopt : std::optional(entry->name);
}

std::optional<RingServer::Name> RingServer::find(uint64_t number, uint32_t uid) const {
  std::lock_guard lock(mutex_);
  auto found = numbers_.find(number);
  const Entry* entry = found == numbers_.end() ? nullptr : visible(found->second, uid);
  return entry == nullptr ? std::nullopt : std::optional(entry->name);
}

std::vector<RingServer::Name> RingServer::list(uint32_t uid) const {
  std::lock_guard lock(mutex_);
  std::vector<Name> names;
  for (const auto& [number, name] : numbers_) {
    if (const Entry* entry = visible(name, uid)) names.push_back(entry->name);
  }
  return names;
}

RingServer::Counts RingServer::counts() const {
  std::lock_guard lock(mutex_);
  Counts counts;
  for (const auto& [name, entry] : entries_) ++(entry.ring ? counts.rings : counts.iovs);
  return counts;
}

// ---- the end of a name

void RingServer::remove(std::string_view name, uint32_t uid, Function<void(Status)> done) {
  std::unique_lock lock(mutex_);
  const Entry* entry = visible(name, uid);
  if (entry == nullptr) {
    lock.unlock();
    return done(Status(ENOENT, "usrbio/unregister", "there is no such name"));
  }
  uint32_t pid = entry->name.owner.pid;
  drop(std::string(name), [done = std::move(done)]() mutable { done(Status()); });
  collect(pid);
}

// REQUIRES: mutex_ held (and the next three). `then` runs on a reactor, without the lock.
void RingServer::drop(const std::string& name, Function<void()> then) {
  auto found = entries_.find(name);
  if (found == entries_.end()) return lanes_.front()->reactor.post(std::move(then));
  Entry entry = std::move(found->second);
  numbers_.erase(entry.name.number);
  entries_.erase(found);
  if (keeper_ != nullptr) keeper_->drop(name);
  if (entry.iov) iovs_.remove(*entry.iov);
  if (entry.ring == nullptr) return lanes_.front()->reactor.post(std::move(then));
  Reactor& reactor = entry.ring->reactor();
  reactor.post([ring = std::move(entry.ring), then = std::move(then)]() mutable {
    ring->end(ESHUTDOWN);
    ring->when_idle(std::move(then));
  });
}

void RingServer::watch(uint32_t pid) {
  if (pid == 0 || watches_.contains(pid)) return;
  int fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  // Dead already: it died while no process served the mount.
  bool dead = fd < 0 && errno == ESRCH;
  if (fd < 0 && !dead) return;
  Reactor& reactor = lanes_.front()->reactor;
  auto made = std::make_shared<Watch>(reactor, fd, [this, alive = alive_, pid] {
    if (alive->load()) process_ended(pid);
  });
  watches_[pid] = made;
  reactor.post([made, dead] { dead ? made->on_events(0) : made->start(); });
}

void RingServer::process_ended(uint32_t pid) {
  std::lock_guard lock(mutex_);
  auto found = watches_.find(pid);
  if (found == watches_.end()) return;
  found->second->over = true;
  collect(pid);
}

// What a dead process has registered goes, unless a forked one still has a ring of it. A live one
// without names is not watched any more.
void RingServer::collect(uint32_t pid) {
  auto watched = watches_.find(pid);
  if (watched == watches_.end()) return;
  std::vector<std::string> names;
  bool ring = false;
  for (const auto& [name, entry] : entries_) {
    if (entry.name.owner.pid != pid) continue;
    names.push_back(name);
    ring |= entry.ring != nullptr;
  }
  if (!names.empty() && (!watched->second->over || ring)) return;
  for (const std::string& name : names) {
    forget_file(entries_.find(name)->second);
    drop(name, [] {});
  }
  auto watch = std::move(watched->second);
  watches_.erase(watched);
  lanes_.front()->reactor.post([watch] { watch->stop(); });
}

// The file of memory that the library has made, if it is still that one.
void RingServer::forget_file(const Entry& entry) {
  std::string_view below = std::string_view(entry.name.target).substr(shm_prefix_.size());
  if (!below.starts_with(kOwnIov) || below.find('/') != std::string_view::npos) return;
  std::string file(below);
  struct stat info{};
  bool same = fstatat(shm_, file.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
              info.st_ino == entry.file_inode;
  if (same) (void)unlinkat(shm_, file.c_str(), 0);
}

// ---- the end of the server

std::vector<std::shared_ptr<ServedRing>> RingServer::rings() const {
  std::vector<std::shared_ptr<ServedRing>> all;
  for (const auto& [name, entry] : entries_) {
    if (entry.ring != nullptr) all.push_back(entry.ring);
  }
  return all;
}

bool RingServer::pause(int64_t timeout_ns) {
  struct Waiting {
    std::mutex mutex;
    std::condition_variable changed;
    size_t open = 0;
  };
  auto waiting = std::make_shared<Waiting>();
  {
    std::lock_guard lock(mutex_);
    ended_ = true;  // nothing is registered with this process any more
    auto all = rings();
    waiting->open = all.size();
    for (auto& ring : all) {
      Reactor& reactor = ring->reactor();
      reactor.post([ring, waiting] {
        ring->pause();
        ring->when_idle([waiting] {
          std::lock_guard lock(waiting->mutex);
          --waiting->open;
          waiting->changed.notify_all();
        });
      });
    }
  }
  std::unique_lock lock(waiting->mutex);
  return waiting->changed.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                                   [&] { return waiting->open == 0; });
}

void RingServer::end(int error) {
  std::vector<std::shared_ptr<ServedRing>> all;
  std::map<uint32_t, std::shared_ptr<Watch>> watches;
  std::vector<IovId> memory;
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
    all = rings();
    // The memory stays in the table until the rings have ended: what they take meanwhile is to end
    // with the mount, not for want of memory.
    for (const auto& [name, entry] : entries_) {
      if (entry.iov) memory.push_back(*entry.iov);
    }
    entries_.clear();
    numbers_.clear();
    watches.swap(watches_);
  }
  for (auto& ring : all) {
    ring->reactor().run_and_wait([&] { ring->end(error); });
  }
  for (const IovId& id : memory) iovs_.remove(id);
  lanes_.front()->reactor.run_and_wait([&] {
    for (auto& [pid, watch] : watches) watch->stop();
  });
}

}  // namespace fs3::usrbio
