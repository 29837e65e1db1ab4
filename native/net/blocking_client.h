// BlockingClient: one channel with its own reactor thread and a call that waits, for tools, tests
// and checkers.
//
// Thread safety: call() from any thread, many at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/reactor.h"
#include "net/rpc.h"

namespace fs3::net {

class BlockingClient {
 public:
  static Result<std::unique_ptr<BlockingClient>> create(const std::string& address, Identity self);
  ~BlockingClient();

  struct Request {
    uint16_t method = 0;
    std::string body;
    std::string capability;
    std::span<const std::byte> source;
    std::span<std::byte> sink;
    int64_t timeout_ns = 0;  // 0 = 10 s
  };
  // Returns when the call has ended in one way or another.
  Reply call(Request request);
  bool healthy() const { return channel_->healthy(); }

 private:
  BlockingClient() = default;
  std::unique_ptr<ReactorThread> thread_;
  std::shared_ptr<Channel> channel_;
};

}  // namespace fs3::net
