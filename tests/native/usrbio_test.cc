// The mount's side of rings, against programs that do as they please with what they share.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <future>
#include <mutex>

#include "base/shared_memory.h"
#include "usrbio/server.h"

namespace fs3::usrbio {
namespace {

constexpr size_t kIovBytes = 1 << 20;
constexpr const char* kUuid = "01234567-89ab-cdef-0123-456789abcdef";

// A file of 1 MiB whose byte i is i; file 1 with key 11. Reads can be held back.
class FakeFiles final : public RingFiles {
 public:
  void ring_read(const FileName& name, uint64_t offset, std::byte* into, size_t length, bool,
                 Function<void(Result<size_t>)> done) override {
    if (name.file != 1 || name.key != 11) return done(Status(EBADF, "test", ""));
    auto read = [this, offset, into, length, done = std::move(done)]() mutable {
      size_t got = offset >= kIovBytes ? 0 : std::min<uint64_t>(length, kIovBytes - offset);
      for (size_t i = 0; i < got; ++i) into[i] = static_cast<std::byte>(offset + i);
      done(got);
    };
    std::lock_guard lock(mutex_);
    ++reads;
    if (!hold) return read();
    held_.push_back(std::move(read));
    changed_.notify_all();
  }
  void ring_write(const FileName&, uint64_t, Buffer data,
                  Function<void(Result<size_t>)> done) override {
    done(data.size());
  }
  void wait_held(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return held_.size() >= count; });
  }
  void release(Reactor& reactor) {
    std::vector<Function<void()>> all;
    {
      std::lock_guard lock(mutex_);
      all.swap(held_);
      hold = false;
    }
    reactor.run_and_wait([&] {
      for (auto& read : all) read();
    });
  }
  bool hold = false;
  std::atomic<int> reads{0};

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Function<void()>> held_;
};

// What a program has mapped.
struct Mapped {
  explicit Mapped(const std::string& path, size_t size) : size(size) {
    fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT_EQ(ftruncate(fd, static_cast<off_t>(size)), 0);
    memory =
        static_cast<std::byte*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  }
  ~Mapped() {
    munmap(memory, size);
    close(fd);
  }
  int fd;
  size_t size;
  std::byte* memory;
};

class Usrbio : public testing::Test {
 protected:
  Usrbio() {
    char name[] = "/dev/shm/fs3-test-XXXXXX";
    directory_ = mkdtemp(name);
    thread_ = ReactorThread::create("test").value();
    server_.emplace(std::vector<Reactor*>{&thread_->reactor()}, files_, nullptr, directory_);
  }
  ~Usrbio() override {
    server_.reset();
    for (int i = 0; i < 2; ++i) thread_->reactor().run_and_wait([] {});
    std::string command = "rm -r " + directory_;
    EXPECT_EQ(std::system(command.c_str()), 0);
  }

  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  RingServer::Owner me() const {
    return {static_cast<uint32_t>(getuid()), static_cast<uint32_t>(getpid())};
  }

  // A ring of `entries`, as the library makes it.
  std::unique_ptr<Mapped> make_ring(uint32_t entries) {
    auto ring = std::make_unique<Mapped>(path("ring"), ring_bytes(entries));
    view_ = RingView(ring->memory, entries);
    RingHead& head = view_.head();
    head.magic = kRingMagic;
    head.version = kRingVersion;
    head.entries = entries;
    head.for_read = 1;
    head.bell_wanted = 1;
    for (const char* suffix : {kBellSuffix, kEventSuffix}) {
      EXPECT_EQ(mkfifo((path("ring") + suffix).c_str(), 0600), 0);
    }
    bell_ = open((path("ring") + kBellSuffix).c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC);
    return ring;
  }
  Status add_ring() {
    return server_->add(std::string(kUuid) + kRingSuffix, path("ring"), me()).status();
  }
  std::unique_ptr<Mapped> add_iov() {
    auto iov = std::make_unique<Mapped>(path("iov"), kIovBytes);
    EXPECT_TRUE(server_->add(kUuid, path("iov"), me()).ok());
    return iov;
  }

  Request request(uint64_t sequence) const {
    Request made{};
    const uint8_t half[8] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    for (size_t i = 0; i < sizeof made.iov; ++i) made.iov[i] = half[i % sizeof half];
    made.length = 100;
    made.file = 1;
    made.key = 11;
    made.sequence = sequence;
    return made;
  }
  void put(uint32_t slot, const Request& request) {
    view_.slot(slot).request = request;
    view_.state(slot).store(static_cast<uint8_t>(State::kReady));
  }
  void ring() { EXPECT_EQ(write(bell_, "", 1), 1); }
  // The result of a slot, when it is done.
  int64_t result(uint32_t slot) {
    while (view_.state_of(slot) != State::kDone) usleep(1000);
    view_.state(slot).store(static_cast<uint8_t>(State::kFree));
    return view_.slot(slot).result;
  }
  int64_t one(Request request) {
    put(0, request);
    ring();
    return result(0);
  }
  void settle() {
    for (int i = 0; i < 3; ++i) thread_->reactor().run_and_wait([] {});
  }

  std::string directory_;
  FakeFiles files_;
  std::unique_ptr<ReactorThread> thread_;
  std::optional<RingServer> server_;
  RingView view_;
  int bell_ = -1;
};

TEST(RingView, FindsEverySlotOfAState) {
  constexpr uint32_t kEntries = 37;
  alignas(64) static std::byte memory[ring_bytes(kEntries)];
  RingView view(memory, kEntries);
  for (uint32_t i = 0; i < kEntries; ++i) view.state(i).store(static_cast<uint8_t>(i % 6));
  for (uint8_t wanted = 0; wanted < 6; ++wanted) {
    std::vector<uint32_t> found;
    view.for_each(static_cast<State>(wanted), [&](uint32_t i) { found.push_back(i); });
    std::vector<uint32_t> expected;
    for (uint32_t i = wanted; i < kEntries; i += 6) expected.push_back(i);
    EXPECT_EQ(found, expected);
  }
  EXPECT_EQ(reinterpret_cast<std::byte*>(&view.slot(kEntries - 1) + 1), memory + sizeof memory);
}

TEST(SharedMemory, AFileThatIsCutBecomesZeros) {
  char name[] = "/dev/shm/fs3-test-XXXXXX";
  int fd = mkstemp(name);
  unlink(name);
  ASSERT_EQ(ftruncate(fd, kIovBytes), 0);
  auto memory = SharedMemory::map(fd, kIovBytes).value();
  std::memset(memory->data(), 7, kIovBytes);
  EXPECT_TRUE(is_shared_memory(memory->data() + kIovBytes - 1));
  EXPECT_FALSE(is_shared_memory(memory->data() + kIovBytes));
  ASSERT_EQ(ftruncate(fd, 0), 0);
  EXPECT_FALSE(memory->lost());
  std::byte seen = static_cast<volatile std::byte*>(memory->data())[5000];
  EXPECT_EQ(seen, std::byte{0});
  EXPECT_TRUE(memory->lost());
  std::memset(memory->data(), 8, kIovBytes);
  close(fd);
}

TEST(SharedMemory, TheKernelIsToldApart) {
  char name[] = "/dev/shm/fs3-test-XXXXXX";
  int fd = mkstemp(name);
  unlink(name);
  ASSERT_EQ(ftruncate(fd, kIovBytes), 0);
  auto memory = SharedMemory::map(fd, kIovBytes).value();
  ASSERT_EQ(ftruncate(fd, 0), 0);
  int zero = open("/dev/zero", O_RDONLY);
  ASSERT_EQ(read(zero, memory->data(), 100), -1);
  ASSERT_EQ(errno, EFAULT);
  EXPECT_TRUE(replace_lost_memory(memory->data() + 50, 1));
  EXPECT_EQ(read(zero, memory->data(), 100), 100);
  EXPECT_TRUE(memory->lost());
  int local = 0;
  EXPECT_FALSE(replace_lost_memory(&local, sizeof local));
  close(zero);
  close(fd);
}

TEST_F(Usrbio, AReadGoesIntoTheMemoryOfTheProgram) {
  auto iov = add_iov();
  auto mapped = make_ring(4);
  ASSERT_TRUE(add_ring().ok());
  Request wanted = request(0);
  wanted.iov_offset = 1000;
  wanted.file_offset = 3;
  EXPECT_EQ(one(wanted), 100);
  for (size_t i = 0; i < 100; ++i) EXPECT_EQ(iov->memory[1000 + i], static_cast<std::byte>(3 + i));
  EXPECT_EQ(iov->memory[999], std::byte{0});
  EXPECT_EQ(iov->memory[1100], std::byte{0});
}

TEST_F(Usrbio, WhatCannotBeIsAnErrorOfThatSlot) {
  auto iov = add_iov();
  auto mapped = make_ring(4);
  ASSERT_TRUE(add_ring().ok());
  struct {
    void (*change)(Request&);
    int64_t result;
  } cases[] = {
      {[](Request& r) { r.length = 0; }, -EINVAL},
      {[](Request& r) { r.length = kIovBytes + 1; }, -EFAULT},
      {[](Request& r) { r.length = UINT64_MAX; }, -EFAULT},
      {[](Request& r) { r.iov_offset = kIovBytes - 99; }, -EFAULT},
      {[](Request& r) { r.iov_offset = UINT64_MAX - 50; }, -EFAULT},
      {[](Request& r) { r.file_offset = INT64_MAX; }, -EINVAL},
      {[](Request& r) { r.file_offset = UINT64_MAX; }, -EINVAL},
      {[](Request& r) { r.file = 2; }, -EBADF},
      {[](Request& r) { r.key = 12; }, -EBADF},
      {[](Request& r) { r.file_offset = kIovBytes - 10; }, 10},
      {[](Request& r) { r.file_offset = kIovBytes; }, 0},
  };
  for (const auto& each : cases) {
    Request wanted = request(0);
    each.change(wanted);
    EXPECT_EQ(one(wanted), each.result) << &each - cases;
  }
  server_->remove(kUuid, me().uid, [](Status status) { EXPECT_TRUE(status.ok()); });
  EXPECT_EQ(one(request(0)), -EFAULT);
}

TEST_F(Usrbio, TheOrderIsThatOfTheSequence) {
  auto iov = add_iov();
  auto mapped = make_ring(8);
  ASSERT_TRUE(add_ring().ok());
  // Each reads one more byte into the same place: the last one wins.
  for (uint32_t slot = 0; slot < 8; ++slot) {
    Request wanted = request(100 - slot);
    wanted.file_offset = slot;
    wanted.length = 1;
    put(slot, wanted);
  }
  ring();
  for (uint32_t slot = 0; slot < 8; ++slot) EXPECT_EQ(result(slot), 1);
  EXPECT_EQ(iov->memory[0], std::byte{0});
}

TEST_F(Usrbio, ASlotIsTakenOnce) {
  auto iov = add_iov();
  auto mapped = make_ring(2);
  files_.hold = true;
  ASSERT_TRUE(add_ring().ok());
  put(0, request(0));
  ring();
  files_.wait_held(1);
  // The program says again and again that it is ready.
  for (int i = 0; i < 10; ++i) {
    view_.state(0).store(static_cast<uint8_t>(State::kReady));
    ring();
    settle();
  }
  EXPECT_EQ(files_.reads, 1);
  files_.release(thread_->reactor());
  EXPECT_EQ(result(0), 100);
}

TEST_F(Usrbio, AHeadThatLiesIsRefusedOrHarmless) {
  auto mapped = make_ring(4);
  RingHead& head = view_.head();
  head.magic = 1;
  EXPECT_EQ(add_ring().code(), EINVAL);
  head.magic = kRingMagic;
  head.version = kRingVersion + 1;
  EXPECT_EQ(add_ring().code(), EPROTO);
  head.version = kRingVersion;
  for (uint32_t entries : {0u, 5u, kEntriesMax + 1, UINT32_MAX}) {
    head.entries = entries;
    EXPECT_EQ(add_ring().code(), EINVAL) << entries;
  }
  head.entries = 4;
  auto iov = add_iov();
  ASSERT_TRUE(add_ring().ok());
  // All of the head is something else from now on; only the slots count.
  std::memset(static_cast<void*>(mapped->memory), 0xff, kHeadBytes);
  EXPECT_EQ(one(request(0)), 100);
  // States that do not exist, everywhere.
  for (uint32_t i = 0; i < 4; ++i) view_.state(i).store(0x80 + static_cast<uint8_t>(i));
  ring();
  settle();
  EXPECT_EQ(one(request(1)), 100);
}

TEST_F(Usrbio, MemoryThatIsCutIsAnErrorOfThatProgram) {
  auto iov = add_iov();
  auto mapped = make_ring(4);
  ASSERT_TRUE(add_ring().ok());
  EXPECT_EQ(one(request(0)), 100);
  ASSERT_EQ(ftruncate(iov->fd, 0), 0);
  EXPECT_EQ(one(request(1)), -EFAULT);
  ASSERT_EQ(ftruncate(mapped->fd, 0), 0);
  ring();
  settle();
  EXPECT_EQ(server_->counts().iovs, 1u);  // and the server is as it was
}

TEST_F(Usrbio, OnlyTheOwnerSeesAndUsesIt) {
  if (getuid() != 0) GTEST_SKIP() << "needs root, to be somebody else";
  Mapped theirs(path("theirs"), kIovBytes);
  ASSERT_EQ(fchown(theirs.fd, 1000, 1000), 0);
  constexpr RingServer::Owner kOwner{1000, 0}, kOther{1001, 0};
  EXPECT_EQ(server_->add(kUuid, path("theirs"), kOther).status().code(), EACCES);
  ASSERT_TRUE(server_->add(kUuid, path("theirs"), kOwner).ok());
  EXPECT_TRUE(server_->find(kUuid, 1000));
  EXPECT_FALSE(server_->find(kUuid, 1001));
  EXPECT_TRUE(server_->find(kUuid, 0));
  EXPECT_EQ(server_->list(1001).size(), 0u);
  std::promise<uint32_t> code;
  server_->remove(kUuid, 1001, [&](Status status) { code.set_value(status.code()); });
  EXPECT_EQ(code.get_future().get(), static_cast<uint32_t>(ENOENT));
  // A ring of somebody else does no I/O with it.
  auto mapped = make_ring(1);
  ASSERT_EQ(chown(path("ring").c_str(), 1001, 1001), 0);
  for (const char* suffix : {kBellSuffix, kEventSuffix}) {
    ASSERT_EQ(chown((path("ring") + suffix).c_str(), 1001, 1001), 0);
  }
  ASSERT_TRUE(server_->add(std::string(kUuid) + kRingSuffix, path("ring"), kOther).ok());
  EXPECT_EQ(one(request(0)), -EFAULT);
}

TEST_F(Usrbio, NamesAndTargetsHaveTheirForm) {
  Mapped file(path("file"), 4096);
  Mapped empty(path("empty"), 0);
  ASSERT_EQ(symlink(path("file").c_str(), path("link").c_str()), 0);
  ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
  std::string uuid = kUuid;
  struct {
    std::string name, target;
    uint32_t code;
  } cases[] = {
      {"", path("file"), EINVAL},
      {"x", path("file"), EINVAL},
      {uuid + "x", path("file"), EINVAL},
      {uuid + ".r4", path("file"), EINVAL},
      {uuid + ".b", path("file"), EINVAL},
      {uuid + ".b4x", path("file"), EINVAL},
      {"0123456789ab-cdef-0123-456789abcdef----", path("file"), EINVAL},
      {"01234567-89AB-cdef-0123-456789abcdef", path("file"), EINVAL},
      {uuid, path(""), EINVAL},
      {uuid, "/etc/passwd", EINVAL},
      {uuid, path("../../etc/passwd"), EXDEV},
      {uuid, path("link"), ELOOP},
      {uuid, path("missing"), ENOENT},
      {uuid, path("fifo"), EINVAL},
      {uuid, path("empty"), EINVAL},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(server_->add(each.name, each.target, me()).status().code(), each.code)
        << each.name << " " << each.target;
  }
  ASSERT_TRUE(server_->add(uuid + ".b4096", path("file"), me()).ok());
  EXPECT_EQ(server_->add(uuid + ".b4096", path("file"), me()).status().code(), EEXIST);
  EXPECT_EQ(server_->add(uuid, path("file"), me()).status().code(), EEXIST);
  EXPECT_EQ(server_->counts().iovs, 1u);
}

TEST_F(Usrbio, UnregisteringWaitsForWhatIsUnderWay) {
  auto iov = add_iov();
  auto mapped = make_ring(2);
  files_.hold = true;
  ASSERT_TRUE(add_ring().ok());
  put(0, request(0));
  ring();
  files_.wait_held(1);
  std::promise<void> removed;
  server_->remove(std::string(kUuid) + kRingSuffix, me().uid, [&](Status) { removed.set_value(); });
  settle();
  auto future = removed.get_future();
  EXPECT_EQ(future.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  files_.release(thread_->reactor());
  future.wait();
  EXPECT_EQ(view_.head().ended.load(), ESHUTDOWN);
}

TEST_F(Usrbio, ADeadProgramLeavesNothing) {
  pid_t child = fork();
  if (child == 0) {
    // As a program of its own; it is killed with a ring and memory.
    auto own = std::make_unique<Mapped>(path(std::string("fs3-iov-") + kUuid), kIovBytes);
    auto mapped = make_ring(2);
    (void)own.release();
    (void)mapped.release();
    kill(getpid(), SIGSTOP);
    pause();
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  RingServer::Owner owner{me().uid, static_cast<uint32_t>(child)};
  ASSERT_TRUE(server_->add(kUuid, path(std::string("fs3-iov-") + kUuid), owner).ok());
  ASSERT_TRUE(server_->add(std::string(kUuid) + kRingSuffix, path("ring"), owner).status().ok());
  settle();
  EXPECT_EQ(server_->counts().rings, 1u);
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, &status, 0), child);
  while (server_->counts().rings + server_->counts().iovs > 0) usleep(1000);
  EXPECT_NE(access(path(std::string("fs3-iov-") + kUuid).c_str(), F_OK), 0);
}

TEST_F(Usrbio, AnotherServerGoesOnWithWhatWasTaken) {
  auto iov = add_iov();
  auto mapped = make_ring(2);
  files_.hold = true;
  ASSERT_TRUE(add_ring().ok());
  put(0, request(0));
  ring();
  files_.wait_held(1);
  EXPECT_FALSE(server_->pause(0));
  EXPECT_EQ(view_.state_of(0), State::kTaken);
  put(1, request(1));  // nobody takes it
  FakeFiles others;
  RingServer next({&thread_->reactor()}, others, nullptr, directory_);
  ASSERT_TRUE(next.add(kUuid, path("iov"), me()).ok());
  ASSERT_TRUE(next.add(std::string(kUuid) + kRingSuffix, path("ring"), me()).ok());
  EXPECT_EQ(result(0), 100);
  EXPECT_EQ(result(1), 100);
  EXPECT_EQ(others.reads, 2);
  files_.release(thread_->reactor());
}

}  // namespace
}  // namespace fs3::usrbio
