#include "base/executor.h"

#include <pthread.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace fs3 {
namespace {

class ThreadExecutor final : public Executor {
 public:
  explicit ThreadExecutor(std::string name) : name_(std::move(name)), thread_([this] { work(); }) {}

  ~ThreadExecutor() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  void submit(Function<void()> job) override {
    {
      std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
  }

 private:
  void work() {
    pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_) return;
      Function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      job = nullptr;
      lock.lock();
    }
  }

  const std::string name_;
  // Guarded by mutex_.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Function<void()>> jobs_;
  bool stopping_ = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace

std::unique_ptr<Executor> start_executor(std::string name) {
  return std::make_unique<ThreadExecutor>(std::move(name));
}

}  // namespace fs3
