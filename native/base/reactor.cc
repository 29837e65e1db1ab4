#include "base/reactor.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/check.h"

namespace fs3 {
namespace {

constexpr int kEventsPerRound = 128;
constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr int64_t kWaitForever = -1;

Status system_error(std::string_view where, const char* call) {
  int number = errno;
  return Status(static_cast<uint32_t>(number), where,
                std::string(call) + ": " + std::strerror(number));
}

}  // namespace

int64_t now_ns() {
  timespec time;
  clock_gettime(CLOCK_BOOTTIME, &time);
  return time.tv_sec * kNsPerSecond + time.tv_nsec;
}

struct Reactor::Impl {
  using Work = std::vector<Function<void()>>;

  // One registration of a descriptor. The generation travels in the epoll data, so an event
  // fetched before remove_fd() is recognised as late, even when the number was reused since.
  struct Registration {
    FdHandler* handler = nullptr;
    uint32_t generation = 0;
  };

  struct Due {
    int64_t at_ns;
    TimerId id;
    bool operator>(const Due& other) const {
      return at_ns != other.at_ns ? at_ns > other.at_ns : id > other.id;
    }
  };

  explicit Impl(std::string reactor_name) : name(std::move(reactor_name)) {}
  ~Impl();

  void wake();
  bool enqueue(Function<void()> function, bool only_if_running);
  bool finished();
  int64_t wait_budget_ns();
  int wait(epoll_event* events);
  void dispatch(const epoll_event& event);
  void run_timers();
  void run_posted();
  void run_deferred();
  void drain();
  void drop_all();
  void compact_timers();

  // Constant after creation.
  const std::string name;
  int epoll_fd = -1;
  int wake_fd = -1;

  // Guarded by mutex.
  std::mutex mutex;
  Work posted;
  bool running = false;   // some thread is in run(): what is posted will be run
  bool sleeping = false;  // the reactor is in, or about to enter, a wait that needs a wake-up

  std::atomic<bool> stopping{false};

  // Only the reactor's thread (or before run).
  std::vector<Registration> registrations;  // by descriptor
  Work own_posted;                          // post() from the reactor's own thread
  Work deferred;
  std::vector<Due> heap;  // may hold cancelled ids
  std::unordered_map<TimerId, Function<void()>> timers;
  TimerId next_timer = 1;

  static thread_local Impl* current;
};

thread_local Reactor::Impl* Reactor::Impl::current = nullptr;

// Dropping a function may post or defer again (a call that answers when it dies): repeat until
// nothing is left.
void Reactor::Impl::drop_all() {
  for (;;) {
    Work rest;
    {
      std::lock_guard lock(mutex);
      rest.swap(posted);
    }
    Work own = std::move(own_posted);
    Work later = std::move(deferred);
    own_posted.clear();
    deferred.clear();
    auto old_timers = std::move(timers);
    timers.clear();
    if (rest.empty() && own.empty() && later.empty() && old_timers.empty()) break;
  }
}

Reactor::Impl::~Impl() {
  if (wake_fd >= 0) close(wake_fd);
  if (epoll_fd >= 0) close(epoll_fd);
}

void Reactor::Impl::wake() {
  uint64_t one = 1;
  ssize_t written = write(wake_fd, &one, sizeof one);
  FS3_CHECK(written == sizeof one || errno == EAGAIN);
}

// False when the function was not taken because nobody would run it.
bool Reactor::Impl::enqueue(Function<void()> function, bool only_if_running) {
  bool wake_needed;
  {
    std::lock_guard lock(mutex);
    if (only_if_running && !running) return false;
    posted.push_back(std::move(function));
    wake_needed = sleeping;
    sleeping = false;  // one wake-up is enough for all posts until the next wait
  }
  if (wake_needed) wake();
  return true;
}

// How long the coming wait may last, and announces it to posting threads.
int64_t Reactor::Impl::wait_budget_ns() {
  if (!own_posted.empty()) return 0;
  int64_t budget = kWaitForever;
  while (!heap.empty() && !timers.contains(heap.front().id)) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
  }
  if (!heap.empty()) budget = std::max<int64_t>(0, heap.front().at_ns - now_ns());
  std::lock_guard lock(mutex);
  if (!posted.empty() || stopping.load(std::memory_order_relaxed)) return 0;
  sleeping = budget != 0;
  return budget;
}

int Reactor::Impl::wait(epoll_event* events) {
  int64_t budget = wait_budget_ns();
  timespec timeout{budget / kNsPerSecond, budget % kNsPerSecond};
  int count =
      epoll_pwait2(epoll_fd, events, kEventsPerRound, budget < 0 ? nullptr : &timeout, nullptr);
  if (count < 0 && errno == ENOSYS) {  // kernels before 5.11: whole milliseconds, never too early
    int timeout_ms = budget < 0 ? -1 : static_cast<int>((budget + 999'999) / 1'000'000);
    count = epoll_wait(epoll_fd, events, kEventsPerRound, timeout_ms);
  }
  FS3_CHECK(count >= 0 || errno == EINTR);
  if (budget != 0) {
    std::lock_guard lock(mutex);
    sleeping = false;
  }
  return std::max(count, 0);
}

void Reactor::Impl::dispatch(const epoll_event& event) {
  auto fd = static_cast<int>(event.data.u64 & 0xffffffff);
  auto generation = static_cast<uint32_t>(event.data.u64 >> 32);
  if (fd == wake_fd) {
    uint64_t count;
    ssize_t got = read(wake_fd, &count, sizeof count);
    FS3_CHECK(got == sizeof count || errno == EAGAIN);
    return;
  }
  const Registration& registration = registrations[static_cast<size_t>(fd)];
  if (registration.handler == nullptr || registration.generation != generation) return;
  registration.handler->on_events(event.events);
}

void Reactor::Impl::run_timers() {
  if (heap.empty()) return;
  int64_t now = now_ns();
  while (!heap.empty() && heap.front().at_ns <= now) {
    TimerId id = heap.front().id;
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    auto found = timers.find(id);
    if (found == timers.end()) continue;
    Function<void()> function = std::move(found->second);
    timers.erase(found);
    function();
  }
}

// One generation of posted functions; what they post runs in the next round, so sockets are never
// starved.
void Reactor::Impl::run_posted() {
  Work from_others;
  {
    std::lock_guard lock(mutex);
    from_others.swap(posted);
  }
  Work own;
  own.swap(own_posted);
  for (auto& function : from_others) {
    function();
    function = nullptr;
  }
  for (auto& function : own) {
    function();
    function = nullptr;
  }
}

void Reactor::Impl::run_deferred() {
  while (!deferred.empty()) {
    Work round;
    round.swap(deferred);
    for (auto& function : round) function();
  }
}

void Reactor::Impl::drain() {
  do {
    run_deferred();
    run_posted();
  } while (!finished());
}

bool Reactor::Impl::finished() {
  if (!own_posted.empty() || !deferred.empty()) return false;
  std::lock_guard lock(mutex);
  if (!posted.empty()) return false;
  running = false;
  return true;
}

// Cancelled timers stay in the heap until they are due; rebuild it when most of it is such.
void Reactor::Impl::compact_timers() {
  if (heap.size() < 64 || heap.size() < 2 * timers.size()) return;
  std::erase_if(heap, [this](const Due& due) { return !timers.contains(due.id); });
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
}

Reactor::Reactor(std::string name) : impl_(std::make_unique<Impl>(std::move(name))) {}
Reactor::~Reactor() { impl_->drop_all(); }

Result<std::unique_ptr<Reactor>> Reactor::create(std::string name) {
  std::unique_ptr<Reactor> reactor(new Reactor(std::move(name)));
  Impl& impl = *reactor->impl_;
  impl.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (impl.epoll_fd < 0) return system_error("reactor/create", "epoll_create1");
  impl.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (impl.wake_fd < 0) return system_error("reactor/create", "eventfd");
  epoll_event event{.events = EPOLLIN, .data = {.u64 = static_cast<uint64_t>(impl.wake_fd)}};
  if (epoll_ctl(impl.epoll_fd, EPOLL_CTL_ADD, impl.wake_fd, &event) != 0) {
    return system_error("reactor/create", "epoll_ctl");
  }
  return reactor;
}

void Reactor::run() {
  FS3_CHECK(Impl::current == nullptr);
  Impl::current = impl_.get();
  {
    std::lock_guard lock(impl_->mutex);
    impl_->running = true;
  }
  if (!impl_->stopping.load(std::memory_order_acquire)) {
    // Linux keeps 15 characters of a thread's name.
    pthread_setname_np(pthread_self(), impl_->name.substr(0, 15).c_str());
  }
  epoll_event events[kEventsPerRound];
  while (!impl_->stopping.load(std::memory_order_acquire)) {
    int count = impl_->wait(events);
    for (int i = 0; i < count; ++i) impl_->dispatch(events[i]);
    impl_->run_timers();
    impl_->run_posted();
    impl_->run_deferred();
  }
  impl_->drain();
  impl_->stopping.store(false, std::memory_order_release);
  Impl::current = nullptr;
}

void Reactor::stop() {
  bool wake_needed;
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping.store(true, std::memory_order_release);
    wake_needed = impl_->sleeping;
    impl_->sleeping = false;
  }
  if (wake_needed) impl_->wake();
}

bool Reactor::on_thread() const { return Impl::current == impl_.get(); }

void Reactor::post(Function<void()> function) {
  if (on_thread()) {
    impl_->own_posted.push_back(std::move(function));
  } else {
    impl_->enqueue(std::move(function), /*only_if_running=*/false);
  }
}

void Reactor::run_and_wait(Function<void()> function) {
  if (on_thread()) return function();
  std::promise<void> done;
  auto run = [&function, &done] {
    function();
    done.set_value();
  };
  if (impl_->enqueue(run, /*only_if_running=*/true)) {
    done.get_future().wait();
  } else {
    function();
  }
}

void Reactor::defer(Function<void()> function) { impl_->deferred.push_back(std::move(function)); }

Status Reactor::add_fd(int fd, uint32_t events, FdHandler* handler) {
  FS3_CHECK(fd >= 0 && handler != nullptr);
  auto index = static_cast<size_t>(fd);
  if (impl_->registrations.size() <= index) impl_->registrations.resize(index + 1);
  Impl::Registration& registration = impl_->registrations[index];
  FS3_CHECK(registration.handler == nullptr);
  uint64_t generation = ++registration.generation;
  epoll_event event{.events = events, .data = {.u64 = generation << 32 | index}};
  if (epoll_ctl(impl_->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
    return system_error("reactor/add_fd", "epoll_ctl");
  }
  registration.handler = handler;
  return Status();
}

Status Reactor::modify_fd(int fd, uint32_t events) {
  auto index = static_cast<size_t>(fd);
  FS3_CHECK(index < impl_->registrations.size() && impl_->registrations[index].handler != nullptr);
  uint64_t generation = impl_->registrations[index].generation;
  epoll_event event{.events = events, .data = {.u64 = generation << 32 | index}};
  if (epoll_ctl(impl_->epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0) {
    return system_error("reactor/modify_fd", "epoll_ctl");
  }
  return Status();
}

void Reactor::remove_fd(int fd) {
  auto index = static_cast<size_t>(fd);
  FS3_CHECK(index < impl_->registrations.size() && impl_->registrations[index].handler != nullptr);
  impl_->registrations[index].handler = nullptr;
  // Fails only when the descriptor was closed before, and then the kernel has dropped it already.
  epoll_ctl(impl_->epoll_fd, EPOLL_CTL_DEL, fd, nullptr);
}

Reactor::TimerId Reactor::after(int64_t delay_ns, Function<void()> function) {
  TimerId id = impl_->next_timer++;
  impl_->timers.emplace(id, std::move(function));
  impl_->heap.push_back({now_ns() + std::max<int64_t>(delay_ns, 0), id});
  std::push_heap(impl_->heap.begin(), impl_->heap.end(), std::greater<>());
  return id;
}

void Reactor::cancel(TimerId id) {
  auto found = impl_->timers.find(id);
  if (found == impl_->timers.end()) return;
  Function<void()> dropped = std::move(found->second);  // destroyed after the map is consistent
  impl_->timers.erase(found);
  impl_->compact_timers();
}

struct ReactorThread::Impl {
  std::unique_ptr<Reactor> reactor;
  std::thread thread;
};

Result<std::unique_ptr<ReactorThread>> ReactorThread::create(std::string name) {
  auto reactor = Reactor::create(std::move(name));
  if (!reactor.ok()) return reactor.status();
  std::unique_ptr<ReactorThread> result(new ReactorThread);
  result->impl_ = std::make_unique<Impl>();
  result->impl_->reactor = std::move(*reactor);
  result->impl_->thread = std::thread([r = result->impl_->reactor.get()] { r->run(); });
  // run_and_wait() relies on run() having been entered.
  std::promise<void> started;
  result->impl_->reactor->post([&started] { started.set_value(); });
  started.get_future().wait();
  return result;
}

ReactorThread::~ReactorThread() {
  impl_->reactor->stop();
  impl_->thread.join();
}

Reactor& ReactorThread::reactor() { return *impl_->reactor; }

}  // namespace fs3
