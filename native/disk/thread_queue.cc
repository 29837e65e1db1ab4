// Blocking calls on a few threads behind IoQueue, for kernels or sandboxes without io_uring.
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "disk/io_queue.h"

namespace fs3::disk {
namespace {

constexpr int kThreads = 4;
constexpr uint64_t kBytesPerCall = 1u << 30;

int64_t call_once(const IoRequest& request) {
  auto* bytes = request.buffer.data() + request.transferred;
  size_t size = std::min(request.length - request.transferred, kBytesPerCall);
  auto at = static_cast<off_t>(request.offset + request.transferred);
  auto length = static_cast<off_t>(request.length);
  int64_t result = -1;
  switch (request.kind) {
    case IoRequest::Kind::kRead:
      result = pread(request.fd, bytes, size, at);
      break;
    case IoRequest::Kind::kWrite:
      result = pwrite(request.fd, bytes, size, at);
      break;
    case IoRequest::Kind::kDatasync:
      result = fdatasync(request.fd);
      break;
    case IoRequest::Kind::kAllocate:
      result = fallocate(request.fd, 0, at, length);
      break;
    case IoRequest::Kind::kPunch:
      result = fallocate(request.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length);
      break;
  }
  return result < 0 ? -errno : result;
}

class ThreadQueue final : public IoQueue {
 public:
  explicit ThreadQueue(Reactor& reactor) : reactor_(reactor) {
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { work(); });
  }

  ~ThreadQueue() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      queue_.clear();
    }
    wake_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  void submit(std::unique_ptr<IoRequest> request) override {
    {
      std::lock_guard lock(mutex_);
      queue_.push_back(std::move(request));
    }
    wake_.notify_one();
  }

  const char* name() const override { return "threads"; }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      auto request = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      int64_t result = 0;
      while (!request->advance(call_once(*request), &result)) {
      }
      auto answer = [request = std::move(request), result,
                     alive = std::weak_ptr<char>(alive_)]() mutable {
        if (!alive.expired()) request->done(result);
      };
      reactor_.post(std::move(answer));
      lock.lock();
    }
  }

  Reactor& reactor_;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::unique_ptr<IoRequest>> queue_;  // guarded by mutex_
  bool stopping_ = false;                         // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace

std::unique_ptr<IoQueue> make_thread_queue(Reactor& reactor) {
  return std::make_unique<ThreadQueue>(reactor);
}

}  // namespace fs3::disk
