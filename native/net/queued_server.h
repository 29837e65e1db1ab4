// QueuedServer: an RPC server whose requests wait in a bounded queue until another thread takes
// them in batches, so that one crossing into Python serves many requests. It has its own reactor
// thread.
//
// Thread safety: every method from any thread. Invariants:
//  1. At most `queue_max` requests wait; further ones are answered BUSY at once.
//  2. A request whose deadline passed while it waited is answered TIMED_OUT and not handed out.
//  3. A request that was handed out is answered exactly once: by answer(), or SHUTTING_DOWN by
//     stop().
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/reactor.h"
#include "net/rpc.h"

namespace fs3::net {

class QueuedServer {
 public:
  // `call` stays valid until the handle is answered or the server stopped: the caller must not
  // read it while another thread does either.
  struct Taken {
    uint64_t handle;
    const ServerCall* call;
  };
  struct Answer {
    uint64_t handle;
    Status status;
    std::string body;
  };

  static Result<std::unique_ptr<QueuedServer>> create(std::string name, Identity self,
                                                      size_t queue_max);
  ~QueuedServer();

  Result<std::string> listen(const std::string& address);
  // Everything that waits, oldest first, `max` at most. Waits up to `timeout_ns` for the first one;
  // empty after the time-out, when all that waited was late, and at once when the server is
  // stopped.
  std::vector<Taken> take(size_t max, int64_t timeout_ns);
  // EINVAL names a handle that is not open; the others are answered all the same.
  Status answer(std::vector<Answer> answers);
  // Closes all connections. Idempotent.
  void stop();

  struct Statistics {
    RpcServer::Statistics rpc;
    uint64_t busy, expired;
    size_t waiting, handed_out;
  };
  Statistics statistics() const;

 private:
  explicit QueuedServer(size_t queue_max) : queue_max_(queue_max) {}
  void arrived(ServerCallPtr call);

  const size_t queue_max_;
  std::unique_ptr<ReactorThread> thread_;  // constant after create

  mutable std::mutex mutex_;  // guards the rest; nothing that waits is called under it
  std::condition_variable arrived_;
  bool stopped_ = false;
  std::shared_ptr<RpcServer> server_;  // null once stopped
  std::deque<ServerCallPtr> waiting_;
  std::unordered_map<uint64_t, ServerCallPtr> handed_out_;
  uint64_t next_handle_ = 1;
  uint64_t busy_ = 0;
  uint64_t expired_ = 0;
  RpcServer::Statistics last_{};  // of the server when it was stopped
};

}  // namespace fs3::net
