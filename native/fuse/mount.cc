#include "fuse/mount.h"
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <future>
#include <thread>

#include "fuse/device.h"

namespace fs3::fuse {

uint32_t default_reactors() { return std::clamp(std::thread::hardware_concurrency(), 1u, 4u); }

Mount::Mount(SessionOptions options, uint32_t reactors, MakeFilesystem make)
    : options_(std::move(options)),
      reactor_count_(reactors == 0 ? default_reactors() : reactors),
      make_(std::move(make)) {}

Mount::~Mount() {
  Status status = stop(true);
  if (!status.ok()) std::fprintf(stderr, "fs3 mount: %s\n", status.to_string().c_str());
}

Status Mount::start() {
  {
    std::lock_guard lock(mutex_);
    if (started_) return Status(EALREADY, "fuse/mount", "start() was called before");
    started_ = true;
  }
  std::vector<Reactor*> reactors;
  for (uint32_t i = 0; i < reactor_count_; ++i) {
    auto reactor = ReactorThread::create("fs3-mount-" + std::to_string(i));
    if (!reactor.ok()) return reactor.status();
    reactors_.push_back(std::move(reactor).value());
    reactors.push_back(&reactors_.back()->reactor());
  }
  auto filesystem = make_(reactors);
  if (!filesystem.ok()) return filesystem.status();
  filesystem_ = std::move(filesystem).value();
  auto session = Session::mount(options_, reactors, *filesystem_, [this] {
    std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  });
  if (!session.ok()) return session.status();
  std::lock_guard lock(mutex_);
  session_ = std::move(session).value();
  return Status();
}

bool Mount::wait(int64_t timeout_ns) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [this] { return ended_; });
}

bool Mount::running() const {
  std::lock_guard lock(mutex_);
  return started_ && !ended_;
}

Status Mount::unmount(bool force) {
  // Without a write-back cache only pages of shared mappings can be dirty.
  sync_path(options_.mount.mountpoint);
  Status status = session_->unmount(false);
  if (status.code() == EBUSY && force) status = session_->unmount(true);
  return status;
}

Status Mount::stop(bool force) {
  if (session_ == nullptr) {
    tear_down();
    return Status();
  }
  if (running()) {
    Status status = unmount(force);
    // EINVAL, ENOENT: somebody else unmounted it in the meantime.
    if (!status.ok() && status.code() == EBUSY) return status;
  }
  tear_down();
  return Status();
}

std::vector<int> Mount::descriptors() const {
  std::lock_guard lock(mutex_);
  if (session_ == nullptr || options_.handover == nullptr) return {};
  std::vector<int> all{options_.handover->fd()};
  for (int fd : session_->descriptors()) all.push_back(fd);
  return all;
}

bool Mount::let_go(int64_t timeout_ns) {
  bool answered = session_->let_go(timeout_ns);
  filesystem_->settle_all();
  return answered;
}

// What was posted to the reactors before has run when it returns.
void Mount::drain_reactors() {
  for (auto& reactor : reactors_) {
    std::promise<void> done;
    reactor->reactor().post([&done] { done.set_value(); });
    done.get_future().wait();
  }
}

void Mount::tear_down() {
  if (filesystem_) filesystem_->shutdown();
  std::unique_ptr<Session> session;
  {
    std::lock_guard lock(mutex_);
    session = std::move(session_);
    ended_ = true;  // also when the kernel still holds a lazily detached mount: wait() returns
    changed_.notify_all();
  }
  session.reset();
  // Callbacks of ended calls still use the file system, and its client uses the reactors.
  drain_reactors();
  drain_reactors();
  filesystem_.reset();
  reactors_.clear();
}

bool Mount::over_uring() const {
  std::lock_guard lock(mutex_);
  return session_ != nullptr && session_->over_uring();
}

std::vector<OperationSample> Mount::operations() const {
  std::lock_guard lock(mutex_);
  if (session_ == nullptr) return {};
  return session_->statistics().sample();
}

}  // namespace fs3::fuse
