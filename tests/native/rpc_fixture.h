// A server with one method per behaviour and a client that waits, for the tests of native/net.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <future>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "net/rpc.h"

namespace fs3::net {

enum TestMethod : uint16_t {
  kEcho = 1,      // capability and body
  kMirror = 2,    // the source into the sink
  kHold = 3,      // answered by release()
  kDrop = 4,      // destroyed without answer
  kFail = 5,      // a fixed error
  kWhoAmI = 6,    // the principal as text
  kChecksum = 7,  // the checksum of the source
  kDeadline = 8,  // ns left
  kHugeReply = 9,
  kElsewhere = 10,  // echo, answered by another thread
};

inline Identity identity(const std::string& cluster, Role role, uint32_t node) {
  return Identity{cluster, std::string(16, 'i'), role, node};
}

inline std::vector<std::byte> random_bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = random();
    std::memcpy(bytes.data() + i, &word, std::min<size_t>(8, size - i));
  }
  return bytes;
}

// A fresh path for a Unix socket, removed at the end.
class SocketPath {
 public:
  SocketPath() {
    char pattern[] = "/tmp/fs3-rpc-XXXXXX";
    directory_ = mkdtemp(pattern);
  }
  ~SocketPath() { std::filesystem::remove_all(directory_); }
  std::string path() const { return directory_ + "/socket"; }
  std::string address() const { return "unix://" + path(); }
  // What a killed server leaves behind.
  void leave_stale_socket() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path().c_str());
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    close(fd);
  }

 private:
  std::string directory_;
};

class TestServer {
 public:
  TestServer(const std::string& address, const std::string& cluster)
      : thread_(std::move(ReactorThread::create("server")).value()) {
    server_ = std::move(RpcServer::create(thread_->reactor(), identity(cluster, Role::kStorage, 7),
                                          [this](ServerCallPtr call) { handle(std::move(call)); }))
                  .value();
    auto bound = server_->listen(address);
    EXPECT_TRUE(bound.ok()) << bound.status().to_string();
    if (bound.ok()) address_ = *bound;
  }
  ~TestServer() {
    server_.reset();
    for (auto& helper : helpers_) helper.join();
    held_.clear();
  }

  const std::string& address() const { return address_; }
  RpcServer::Statistics statistics() const { return server_->statistics(); }
  void stop_serving() { server_.reset(); }

  size_t held() {
    std::lock_guard lock(mutex_);
    return held_.size();
  }
  void wait_for_held(size_t count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(
        changed_.wait_for(lock, std::chrono::seconds(20), [&] { return held_.size() >= count; }));
  }
  std::deque<ServerCallPtr> take_held() {
    std::lock_guard lock(mutex_);
    return std::exchange(held_, {});
  }
  // Waits for a held call, takes the oldest, and answers it on this thread.
  void release(Function<void(ServerCall&)> answer) {
    ServerCallPtr call;
    {
      std::unique_lock lock(mutex_);
      ASSERT_TRUE(
          changed_.wait_for(lock, std::chrono::seconds(20), [&] { return !held_.empty(); }));
      call = std::move(held_.front());
      held_.pop_front();
    }
    answer(*call);
  }
  void release_all(Function<void(ServerCall&)> answer) {
    for (auto& call : take_held()) answer(*call);
  }
  // And from now on at once.
  void release_all_ever(void (*answer)(ServerCall&)) {
    std::deque<ServerCallPtr> calls;
    {
      std::lock_guard lock(mutex_);
      at_once_ = answer;
      calls.swap(held_);
    }
    for (auto& call : calls) answer(*call);
  }
  // Polls a condition that other threads make true.
  static void wait_until(Function<bool()> condition) {
    auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "the condition never came true";
      std::this_thread::yield();
    }
  }

 private:
  void hold(ServerCallPtr call) {
    std::unique_lock lock(mutex_);
    if (at_once_ != nullptr) {
      lock.unlock();
      return at_once_(*call);
    }
    held_.push_back(std::move(call));
    changed_.notify_all();
  }

  void handle(ServerCallPtr call) {
    switch (call->method()) {
      case kEcho:
        return call->reply(Status(), std::string(call->capability()) + std::string(call->body()));
      case kMirror:
        call->pull(0, call->source_length(), [&](Result<Buffer> data) {
          ASSERT_TRUE(data.ok());
          size_t half = data->size() / 2;
          call->push(data->slice(0, half));
          call->push(data->slice(half, data->size() - half));
        });
        return call->reply(Status(), "");
      case kHold:
        return hold(std::move(call));
      case kDrop:
        return;
      case kFail:
        return call->reply(Status(kChainVersionMismatch, "storage-2/write", "chain 3"), "ignored");
      case kWhoAmI: {
        const Principal& p = call->principal();
        return call->reply(Status(), p.instance_id + " role " +
                                         std::to_string(static_cast<int>(p.role)) + " node " +
                                         std::to_string(p.node_id) + " uid " +
                                         std::to_string(p.uid) + " at " + p.address);
      }
      case kChecksum:
        return call->reply(Status(), std::to_string(call->source_checksum()));
      case kDeadline:
        return call->reply(Status(), std::to_string(call->deadline_ns() - now_ns()));
      case kHugeReply:
        return call->reply(Status(), std::string((4 << 20) + 1, 'x'));
      case kElsewhere: {
        ServerCall* raw = call.release();
        helpers_.emplace_back([raw] {
          ServerCallPtr owned(raw);
          owned->reply(Status(), std::string(owned->body()));
        });
        return;
      }
      default:
        return call->reply(Status(kUnknownMethod, "test", "no such method"), "");
    }
  }

  std::unique_ptr<ReactorThread> thread_;
  std::unique_ptr<RpcServer> server_;
  std::string address_;
  std::vector<std::thread> helpers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<ServerCallPtr> held_;
  void (*at_once_)(ServerCall&) = nullptr;
};

inline std::shared_ptr<Channel> open_channel(ReactorThread& thread, const std::string& address,
                                             const std::string& cluster) {
  auto channel = Channel::create(thread.reactor(), address, identity(cluster, Role::kClient, 0));
  EXPECT_TRUE(channel.ok()) << channel.status().to_string();
  return *channel;
}

class Pending {
 public:
  explicit Pending(std::future<Reply> future) : future_(std::move(future)) {}
  bool done() const {
    return future_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  Reply wait() {
    if (future_.wait_for(std::chrono::seconds(30)) != std::future_status::ready) {
      ADD_FAILURE() << "no reply after 30 s";
      std::abort();
    }
    return future_.get();
  }

 private:
  std::future<Reply> future_;
};

inline Pending call_async(Channel& channel, CallSpec spec) {
  auto promise = std::make_shared<std::promise<Reply>>();
  Pending pending(promise->get_future());
  channel.call(std::move(spec), [promise](Reply reply) { promise->set_value(std::move(reply)); });
  return pending;
}
inline Pending call_async(Channel& channel, uint16_t method, std::string body) {
  CallSpec spec;
  spec.method = method;
  spec.body = std::move(body);
  return call_async(channel, std::move(spec));
}
inline Reply call(Channel& channel, CallSpec spec) {
  return call_async(channel, std::move(spec)).wait();
}
inline Reply call(Channel& channel, uint16_t method, std::string body) {
  return call_async(channel, method, std::move(body)).wait();
}

}  // namespace fs3::net
