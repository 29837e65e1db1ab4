#include "fuse/session.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>

#include "base/check.h"
#include "fuse/classic_reader.h"
#include "fuse/negotiate.h"
#include "fuse/uring_queues.h"

namespace fs3::fuse {
namespace {

// Runs `function` on the reactor and waits for it. REQUIRES: not on a reactor of the session.
void run_on(Reactor& reactor, Function<void()> function) {
  std::promise<void> done;
  reactor.post([&] {
    function();
    done.set_value();
  });
  done.get_future().wait();
}

// Queues the kernel will use: one per possible CPU, whether it is online or not. The file holds
// ranges, "0-1" or "0,2-7"; its last number is the highest.
uint32_t possible_cpus() {
  std::ifstream file("/sys/devices/system/cpu/possible");
  std::string ranges;
  file >> ranges;
  size_t start = ranges.find_last_of(",-");
  start = start == std::string::npos ? 0 : start + 1;
  uint32_t last = 0;
  auto parsed = std::from_chars(ranges.data() + start, ranges.data() + ranges.size(), last);
  if (parsed.ec != std::errc() || last >= UINT16_MAX) {
    return static_cast<uint32_t>(get_nprocs_conf());
  }
  return last + 1;
}

}  // namespace

bool kernel_allows_uring() {
  std::ifstream file("/sys/module/fuse/parameters/enable_uring");
  char value = 'N';
  file >> value;
  return value == 'Y' || value == '1';
}

Session::Session(SessionOptions options, std::vector<Reactor*> reactors, Filesystem& filesystem,
                 Function<void()> ended)
    : options_(std::move(options)),
      reactors_(std::move(reactors)),
      filesystem_(filesystem),
      ended_(std::move(ended)) {}

Result<std::unique_ptr<Session>> Session::mount(SessionOptions options,
                                                std::vector<Reactor*> reactors,
                                                Filesystem& filesystem, Function<void()> ended) {
  FS3_CHECK(!reactors.empty());
  if (options.uring_depth < 1 || options.uring_depth > 256) {
    return Status(EINVAL, "fuse/session", "uring_depth must be 1..256");
  }
  if (options.uring == UringMode::kRequired && !kernel_allows_uring()) {
    return Status(ENOTSUP, "fuse/session",
                  "FUSE over io_uring is off: it needs Linux 6.14 and, as root, "
                  "echo Y > /sys/module/fuse/parameters/enable_uring");
  }
  std::unique_ptr<Session> session(
      new Session(std::move(options), std::move(reactors), filesystem, std::move(ended)));
  bool made = session->options_.inherited.empty();
  Status status = made ? session->make_mount() : session->take_over();
  if (status.ok()) status = session->open_devices();
  if (!status.ok()) {
    session->let_go_ = !made;
    return status;
  }
  session->notifier_ = std::thread([raw = session.get()] { raw->notification_loop(); });
  filesystem.attached(*session);
  status = session->start_readers();
  if (!status.ok()) {
    session->let_go_ = !made;
    return status;
  }
  return session;
}

Status Session::make_mount() {
  // Resolved now: once mounted, looking at the path would wait for ourselves.
  std::error_code unresolved;
  auto path = std::filesystem::canonical(options_.mount.mountpoint, unresolved);
  if (unresolved) {
    return Status(static_cast<uint32_t>(unresolved.value()), "fuse/session",
                  "mount point " + options_.mount.mountpoint + ": " + unresolved.message());
  }
  options_.mount.mountpoint = path.string();
  auto device = mount_device(options_.mount);
  if (!device.ok()) return device.status();
  device_ = *device;
  connection_ = connection_number(options_.mount.mountpoint);
  return negotiate();
}

Status Session::take_over() {
  if (options_.handover == nullptr) {
    return Status(EINVAL, "fuse/session", "descriptors without the memory that goes with them");
  }
  Handover::Connection connection = options_.handover->connection();
  options_.mount.mountpoint = connection.mountpoint;
  connection_ = connection_number(connection.mountpoint);
  kernel_minor_ = connection.kernel_minor;
  resends_ = connection.resends;
  options_.root_inode = connection.root_inode;
  for (int fd : options_.inherited) {
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0) {
      return Status(static_cast<uint32_t>(errno), "fuse/session",
                    std::string("a descriptor of the process before: ") + std::strerror(errno));
    }
    devices_.push_back(std::make_shared<Device>(own));
  }
  device_ = devices_.front();
  return Status();
}

// One descriptor per reader, except after a takeover, which has those of the process before.
Status Session::open_devices() {
  bool kept = options_.handover != nullptr;
  if (kept && !resends_) devices_.clear();
  if (devices_.empty() && (!kept || resends_)) devices_.push_back(device_);
  while (devices_.size() < reactors_.size() && (options_.inherited.empty() || !resends_)) {
    auto device = device_->clone();
    if (!device.ok()) return device.status();
    devices_.push_back(*device);
  }
  return Status();
}

std::vector<int> Session::descriptors() const {
  std::vector<int> descriptors;
  if (!resends_) return {device_->fd()};
  for (const auto& device : devices_) descriptors.push_back(device->fd());
  return descriptors;
}

Status Session::negotiate() {
  alignas(8) std::byte memory[FUSE_MIN_READ_BUFFER];
  auto message = read_init(memory, sizeof memory);
  if (!message.ok()) return message.status();
  fuse_in_header header;
  std::memcpy(&header, message->data(), sizeof header);
  Negotiation wanted{.max_background = options_.max_background,
                     .max_readahead = options_.max_readahead,
                     .offer_uring = options_.uring != UringMode::kOff &&
                                    options_.handover == nullptr && kernel_allows_uring()};
  auto answer = negotiate_init(message->subspan(sizeof header), wanted);
  if (!answer.ok()) return answer.status();
  kernel_minor_ = answer->kernel_minor;
  Status uring = answer->uring
                     ? prepare_queues()
                     : Status(ENOTSUP, "fuse/session", "the kernel offers no FUSE over io_uring");
  over_uring_ = uring.ok();
  if (!uring.ok()) {
    queues_.clear();
    if (options_.uring == UringMode::kRequired) return uring;
    answer->out.flags2 &= ~static_cast<uint32_t>(kInitOverIoUring >> 32);
    if (answer->uring) {
      std::fprintf(stderr, "fs3 mount: going without io_uring: %s\n", uring.to_string().c_str());
    }
  }
  resends_ = answer->resends;
  if (options_.handover != nullptr) {
    options_.handover->set_connection(
        {answer->out, kernel_minor_, resends_, options_.root_inode, options_.mount.mountpoint});
  }
  return reply_init(header.unique, answer->out);
}

// Waits for the first message of the connection, which is INIT.
Result<Bytes> Session::read_init(std::byte* memory, size_t size) {
  pollfd wait{device_->fd(), POLLIN, 0};
  int ready;
  do {
    ready = poll(&wait, 1, static_cast<int>(options_.negotiate_timeout_ns / 1'000'000));
  } while (ready < 0 && errno == EINTR);
  ssize_t got = ready == 1 ? read(device_->fd(), memory, size) : -1;
  if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) {
    return Status(EPROTO, "fuse/session", "the kernel sent no INIT after mounting");
  }
  fuse_in_header header;
  std::memcpy(&header, memory, sizeof header);
  if (header.opcode != FUSE_INIT || header.len != static_cast<uint32_t>(got)) {
    return Status(
        EPROTO, "fuse/session",
        "expected INIT as the first request, got opcode " + std::to_string(header.opcode));
  }
  return Bytes(memory, static_cast<size_t>(got));
}

Status Session::reply_init(uint64_t unique, const fuse_init_out& out) {
  fuse_out_header header{};
  header.len = sizeof header + sizeof out;
  header.unique = unique;
  iovec parts[2] = {{&header, sizeof header}, {const_cast<fuse_init_out*>(&out), sizeof out}};
  if (writev(device_->fd(), parts, 2) >= 0) return Status();
  return Status(static_cast<uint32_t>(errno), "fuse/session",
                std::string("reply to INIT: ") + std::strerror(errno));
}

Status Session::prepare_queues() {
  std::vector<std::vector<uint16_t>> owned(reactors_.size());
  for (uint32_t queue = 0; queue < possible_cpus(); ++queue) {
    owned[queue % reactors_.size()].push_back(static_cast<uint16_t>(queue));
  }
  Status status;
  for (size_t i = 0; i < reactors_.size() && status.ok(); ++i) {
    if (owned[i].empty()) continue;
    queues_.push_back(std::make_unique<UringQueues>(*this, *reactors_[i], device_, owned[i],
                                                    options_.uring_depth));
    run_on(*reactors_[i], [&] { status = queues_.back()->prepare(); });
  }
  if (!status.ok()) {
    for (size_t i = 0; i < queues_.size(); ++i) run_on(*reactors_[i], [&] { queues_[i]->stop(); });
  }
  return status;
}

// The kernel holds all requests back until every queue has an entry. When it refuses one, it goes
// on the classic way by itself, which is why every reactor has a reader in both modes.
Status Session::start_readers() {
  Status status;
  // Before anything is read: what this process has read would be sent again as well, and the answer
  // to the first would reach nobody.
  if (!options_.inherited.empty() && resends_) status = resend_requests(*device_);
  if (!status.ok()) return status;
  for (size_t i = 0; i < reactors_.size(); ++i) {
    readers_.push_back(
        std::make_unique<ClassicReader>(*this, *reactors_[i], devices_[i % devices_.size()]));
  }
  for (size_t i = 0; i < reactors_.size() && status.ok(); ++i) {
    run_on(*reactors_[i], [&] {
      status = readers_[i]->start();
      if (i < queues_.size()) queues_[i]->register_entries();
    });
  }
  return status;
}

bool Session::let_go(int64_t timeout_ns) {
  FS3_CHECK(options_.handover != nullptr);
  let_go_ = true;
  for (size_t i = 0; i < readers_.size(); ++i) {
    run_on(*reactors_[i], [&] { readers_[i]->stop(); });
  }
  constexpr auto kPoll = std::chrono::milliseconds(2);
  int64_t until_ns = now_ns() + timeout_ns;
  while (under_way_.load(std::memory_order_acquire) > 0) {
    if (now_ns() >= until_ns) return false;
    std::this_thread::sleep_for(kPoll);
  }
  return true;
}

Session::~Session() {
  bool closed = true;
  if (device_ && !let_go_) run_on(*reactors_[0], [&] { closed = closed_; });
  if (!closed) {
    Status status = unmount(true);
    // EINVAL: it is out of the name space already, and somebody still uses it.
    if (!status.ok() && status.code() != EINVAL) {
      std::fprintf(stderr, "fs3 mount: %s\n", status.to_string().c_str());
    }
  }
  // Whoever still uses a lazily unmounted file system gets an error instead of waiting for ever,
  // and a notification that waits in the kernel returns.
  if (!closed) abort_connection(connection_);
  // Each reader and ring leaves its reactor on that reactor's own thread.
  if (device_) {
    for (size_t i = 0; i < reactors_.size(); ++i) {
      run_on(*reactors_[i], [&] {
        if (i < readers_.size()) readers_[i]->stop();
        if (i < queues_.size()) queues_[i]->stop();
      });
    }
  }
  {
    std::lock_guard lock(notify_mutex_);
    notify_stop_ = true;
  }
  notify_changed_.notify_all();
  if (notifier_.joinable()) notifier_.join();
}

Status Session::unmount(bool lazy) { return unmount_path(options_.mount.mountpoint, lazy); }

void Session::connection_closed() {
  Reactor& first = *reactors_[0];
  auto report = [this] {
    if (closed_) return;
    closed_ = true;
    if (ended_) ended_();
  };
  if (first.on_thread()) {
    report();
  } else {
    first.post(report);
  }
}

void Session::dispatch(RequestPtr request, bool known) {
  if (!known) return reply_error(std::move(request), ENOSYS);
  switch (request->opcode()) {
    case FUSE_INTERRUPT:
      return reply_nothing(std::move(request));
    case FUSE_DESTROY:
      return reply_error(std::move(request), 0);
    default:
      request->set_root(options_.root_inode);
      filesystem_.handle(std::move(request));
  }
}

Status Session::invalidate_attributes(uint64_t node) {
  return fuse::invalidate_attributes(*device_, node_of(node));
}

Status Session::invalidate_data(uint64_t node, int64_t offset, int64_t length,
                                Function<void()> done) {
  return enqueue_notification(
      [this, node = node_of(node), offset, length, done = std::move(done)]() mutable {
        Status status = fuse::invalidate_data(*device_, node, offset, length);
        if (done) done();
        return status;
      });
}

Status Session::invalidate_entry(uint64_t parent, std::string name) {
  return enqueue_notification([this, parent = node_of(parent), name = std::move(name)] {
    return fuse::invalidate_entry(*device_, parent, name);
  });
}

Status Session::flush_pages(uint64_t node, Function<void()> done) {
  return enqueue_notification([this, node, done = std::move(done)]() mutable {
    Status status = fuse::invalidate_data(*device_, node, 0, 0);
    done();
    return status;
  });
}

Status Session::enqueue_notification(Function<Status()> notification) {
  {
    std::lock_guard lock(notify_mutex_);
    if (notifications_.size() >= kNotificationsMax) {
      return Status(EAGAIN, "fuse/notify", "too many notifications wait for the kernel");
    }
    notifications_.push_back(std::move(notification));
  }
  notify_changed_.notify_one();
  return Status();
}

void Session::notification_loop() {
  std::unique_lock lock(notify_mutex_);
  for (;;) {
    notify_changed_.wait(lock, [this] { return notify_stop_ || !notifications_.empty(); });
    if (notify_stop_) return;
    Function<Status()> notification = std::move(notifications_.front());
    notifications_.pop_front();
    lock.unlock();
    // ENODEV and the like: the connection is closed, nothing is cached any more.
    (void)notification();
    lock.lock();
  }
}

}  // namespace fs3::fuse
