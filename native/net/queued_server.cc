#include "net/queued_server.h"

#include <cerrno>
#include <chrono>

namespace fs3::net {
namespace {

constexpr const char* kWhere = "net/queue";

}  // namespace

Result<std::unique_ptr<QueuedServer>> QueuedServer::create(std::string name, Identity self,
                                                           size_t queue_max) {
  std::unique_ptr<QueuedServer> queued(new QueuedServer(queue_max));
  auto thread = ReactorThread::create(std::move(name));
  if (!thread.ok()) return thread.status();
  queued->thread_ = std::move(*thread);
  auto server = RpcServer::create(
      queued->thread_->reactor(), std::move(self),
      [target = queued.get()](ServerCallPtr call) { target->arrived(std::move(call)); });
  if (!server.ok()) return server.status();
  queued->server_ = std::move(*server);
  return queued;
}

QueuedServer::~QueuedServer() { stop(); }

Result<std::string> QueuedServer::listen(const std::string& address) {
  std::shared_ptr<RpcServer> server;
  {
    std::lock_guard lock(mutex_);
    server = server_;
  }
  if (server == nullptr) return Status(kShuttingDown, kWhere, "the server was stopped");
  return server->listen(address);
}

void QueuedServer::arrived(ServerCallPtr call) {
  {
    std::lock_guard lock(mutex_);
    if (!stopped_ && waiting_.size() < queue_max_) {
      waiting_.push_back(std::move(call));
    } else {
      ++busy_;
    }
  }
  if (call == nullptr) {
    arrived_.notify_one();
  } else {
    call->reply(Status(kBusy, kWhere, "the queue is full; retry after a pause"), "");
  }
}

std::vector<QueuedServer::Taken> QueuedServer::take(size_t max, int64_t timeout_ns) {
  std::vector<Taken> taken;
  std::vector<ServerCallPtr> late;
  {
    std::unique_lock lock(mutex_);
    auto ready = [this] { return stopped_ || !waiting_.empty(); };
    arrived_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), ready);
    int64_t now = now_ns();
    while (!waiting_.empty() && taken.size() < max) {
      ServerCallPtr call = std::move(waiting_.front());
      waiting_.pop_front();
      if (call->deadline_ns() < now) {
        late.push_back(std::move(call));
        continue;
      }
      uint64_t handle = next_handle_++;
      taken.push_back({handle, call.get()});
      handed_out_.emplace(handle, std::move(call));
    }
    expired_ += late.size();
  }
  for (auto& call : late) {
    call->reply(Status(kTimedOut, kWhere, "the deadline passed in the queue"), "");
  }
  return taken;
}

Status QueuedServer::answer(std::vector<Answer> answers) {
  std::vector<std::pair<ServerCallPtr, Answer>> found;
  Status status;
  {
    std::lock_guard lock(mutex_);
    for (Answer& answer : answers) {
      auto open = handed_out_.extract(answer.handle);
      if (!open.empty()) {
        found.emplace_back(std::move(open.mapped()), std::move(answer));
      } else if (!stopped_) {
        status =
            Status(EINVAL, kWhere,
                   "handle " + std::to_string(answer.handle) + " is not open: answered twice?");
      }
    }
  }
  // One wake-up of the reactor for the whole batch.
  thread_->reactor().post([found = std::move(found)]() mutable {
    for (auto& [call, answer] : found) call->reply(answer.status, std::move(answer.body));
  });
  return status;
}

void QueuedServer::stop() {
  std::deque<ServerCallPtr> waiting;
  std::unordered_map<uint64_t, ServerCallPtr> handed_out;
  std::shared_ptr<RpcServer> server;
  {
    std::lock_guard lock(mutex_);
    if (stopped_) return;
    stopped_ = true;
    waiting.swap(waiting_);
    handed_out.swap(handed_out_);
    server.swap(server_);
  }
  arrived_.notify_all();
  if (server == nullptr) return;  // create() failed
  waiting.clear();                // dropped calls answer SHUTTING_DOWN
  handed_out.clear();
  // Those answers were posted before this function, and their bytes leave at the end of the round
  // in which it runs: before the connections are closed below.
  thread_->reactor().run_and_wait([] {});
  {
    auto last = server->statistics();
    std::lock_guard lock(mutex_);
    last_ = last;
  }
}

QueuedServer::Statistics QueuedServer::statistics() const {
  std::lock_guard lock(mutex_);
  Statistics s{};
  s.rpc = server_ != nullptr ? server_->statistics() : last_;
  s.busy = busy_;
  s.expired = expired_;
  s.waiting = waiting_.size();
  s.handed_out = handed_out_.size();
  return s;
}

}  // namespace fs3::net
