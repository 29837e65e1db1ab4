// The RPC over TCP and Unix sockets: what callers and handlers see. Raw bytes against a server are
// in rpc_garbage_test.cc.
#include "net/rpc.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>
#include <random>
#include <thread>

#include "base/crc32c.h"
#include "rpc_fixture.h"

namespace fs3::net {
namespace {

class Rpc : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { start(); }
  void start() { server_ = std::make_unique<TestServer>(address(), cluster_); }
  std::string address() const {
    if (!bound_.empty()) return bound_;
    return std::string(GetParam()) == "tcp" ? "tcp://127.0.0.1:0" : socket_.address();
  }
  std::shared_ptr<Channel> connect(const std::string& cluster = std::string(16, 'c')) {
    return open_channel(*client_, server_->address(), cluster);
  }
  void restart() {
    bound_ = server_->address();
    server_.reset();
    start();
  }

  std::string cluster_ = std::string(16, 'c');
  SocketPath socket_;
  std::string bound_;
  std::unique_ptr<ReactorThread> client_ = std::move(ReactorThread::create("client")).value();
  std::unique_ptr<TestServer> server_;
};

INSTANTIATE_TEST_SUITE_P(Transports, Rpc, testing::Values("tcp", "unix"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(Rpc, EchoesABodyAndACapability) {
  auto channel = connect();
  EXPECT_TRUE(channel->healthy());
  CallSpec spec;
  spec.method = kEcho;
  spec.body = "hello";
  spec.capability = std::string(80, 'k');
  Reply reply = call(*channel, std::move(spec));
  ASSERT_TRUE(reply.status.ok()) << reply.status.to_string();
  EXPECT_EQ(reply.body, std::string(80, 'k') + "hello");
  EXPECT_EQ(reply.sink_length, 0u);
  EXPECT_TRUE(channel->healthy());
}

TEST_P(Rpc, EmptyBodyAndLargestBody) {
  auto channel = connect();
  EXPECT_EQ(call(*channel, kEcho, "").body, "");
  std::string large(4 << 20, 'x');
  Reply reply = call(*channel, kEcho, large);
  ASSERT_TRUE(reply.status.ok()) << reply.status.to_string();
  EXPECT_TRUE(reply.body == large);
}

TEST_P(Rpc, AServerSeesThePrincipal) {
  auto channel = connect();
  Reply reply = call(*channel, kWhoAmI, "");
  ASSERT_TRUE(reply.status.ok());
  bool unix_socket = std::string(GetParam()) == "unix";
  std::string uid = unix_socket ? std::to_string(getuid()) : std::to_string(UINT32_MAX);
  EXPECT_EQ(reply.body.substr(0, 16), std::string(16, 'i'));
  EXPECT_NE(reply.body.find(" role 1 node 0 uid " + uid), std::string::npos) << reply.body;
  EXPECT_NE(reply.body.find(unix_socket ? "at unix" : "at 127.0.0.1:"), std::string::npos);
}

TEST_P(Rpc, LargestPayloadBothWaysScatteredAndGathered) {
  auto channel = connect();
  std::vector<std::byte> source = random_bytes((4 << 20) + (64 << 10), 1);
  std::vector<std::byte> sink(source.size() + 100);
  Region from = Channel::register_memory(source.data(), source.size());
  Region to = Channel::register_memory(sink.data(), sink.size());
  for (int round = 0; round < 4; ++round) {
    std::fill(sink.begin(), sink.end(), std::byte{0xee});
    CallSpec spec;
    spec.method = kMirror;
    spec.source = {
        {from, 0, 1}, {from, 1, 4095}, {from, 4096, 0}, {from, 4096, source.size() - 4096}};
    spec.sink = {{to, 0, 100'000},
                 {to, 100'000, 0},
                 {to, 100'000, 7},
                 {to, 100'007, source.size() - 100'007}};
    Reply reply = call(*channel, std::move(spec));
    ASSERT_TRUE(reply.status.ok()) << reply.status.to_string();
    ASSERT_EQ(reply.sink_length, source.size());
    EXPECT_EQ(reply.sink_checksum, crc32c(0, source.data(), source.size()));
    EXPECT_EQ(std::memcmp(sink.data(), source.data(), source.size()), 0);
    EXPECT_EQ(sink[source.size()], std::byte{0xee});
  }
}

TEST_P(Rpc, ManyPiecesInSourceAndSink) {
  auto channel = connect();
  std::vector<std::byte> source = random_bytes(3000 * 17, 2);
  std::vector<std::byte> sink(source.size());
  CallSpec spec;
  spec.method = kMirror;
  Region from = Channel::register_memory(source.data(), source.size());
  Region to = Channel::register_memory(sink.data(), sink.size());
  for (size_t i = 0; i < 3000; ++i) spec.source.push_back({from, i * 17, 17});
  for (size_t i = 0; i < 1700; ++i) spec.sink.push_back({to, i * 30, 30});
  Reply reply = call(*channel, std::move(spec));
  ASSERT_TRUE(reply.status.ok()) << reply.status.to_string();
  EXPECT_TRUE(sink == source);
}

TEST_P(Rpc, PayloadsOfEverySmallAndOddSize) {
  auto channel = connect();
  std::vector<std::byte> source = random_bytes(200'000, 3);
  std::vector<std::byte> sink(source.size());
  Region from = Channel::register_memory(source.data(), source.size());
  Region to = Channel::register_memory(sink.data(), sink.size());
  for (size_t size = 0; size <= source.size(); size = size < 70 ? size + 1 : size * 3 / 2 + 1) {
    CallSpec spec;
    spec.method = kMirror;
    spec.body = std::string(size % 50, 'b');
    spec.source = {{from, 0, size}};
    spec.sink = {{to, 0, size}};
    Reply reply = call(*channel, std::move(spec));
    ASSERT_TRUE(reply.status.ok()) << reply.status.to_string();
    ASSERT_EQ(reply.sink_length, size);
    ASSERT_EQ(std::memcmp(sink.data(), source.data(), size), 0) << size;
  }
}

TEST_P(Rpc, ASourceChecksumIsPassedOnAndVerified) {
  auto channel = connect();
  std::vector<std::byte> source = random_bytes(10'000, 4);
  Region from = Channel::register_memory(source.data(), source.size());
  CallSpec spec;
  spec.method = kChecksum;
  spec.source = {{from, 0, source.size()}};
  spec.has_source_checksum = true;
  spec.source_checksum = crc32c(0, source.data(), source.size());
  Reply reply = call(*channel, std::move(spec));
  EXPECT_EQ(reply.body, std::to_string(crc32c(0, source.data(), source.size())));

  CallSpec wrong;
  wrong.method = kChecksum;
  wrong.source = {{from, 0, source.size()}};
  wrong.has_source_checksum = true;
  wrong.source_checksum = 1;
  EXPECT_EQ(call(*channel, std::move(wrong)).status.code(), kConnectionLost);
  server_->wait_until([&] { return server_->statistics().bad_frames == 1; });
  EXPECT_EQ(call(*channel, kEcho, "again").body, "again");
}

TEST_P(Rpc, ErrorsCarryWhereAndDetail) {
  auto channel = connect();
  Reply reply = call(*channel, kFail, "");
  EXPECT_EQ(reply.status.to_string(), "storage-2/write: CHAIN_VERSION_MISMATCH: chain 3");
  EXPECT_TRUE(reply.body.empty());
}

TEST_P(Rpc, ADroppedCallIsAnswered) {
  auto channel = connect();
  EXPECT_EQ(call(*channel, kDrop, "").status.code(), kShuttingDown);
}

TEST_P(Rpc, RepliesFromAnotherThreadAndOutOfOrder) {
  auto channel = connect();
  Pending held = call_async(*channel, kHold, "held");
  EXPECT_EQ(call(*channel, kEcho, "first").body, "first");
  EXPECT_FALSE(held.done());
  server_->release([](ServerCall& c) { c.reply(Status(), "late"); });
  EXPECT_EQ(held.wait().body, "late");
}

TEST_P(Rpc, PipelinesManyCallsFromManyThreads) {
  auto channel = connect();
  std::atomic<int> good{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 50; ++round) {
        std::vector<Pending> calls;
        for (int i = 0; i < 50; ++i) {
          calls.push_back(
              call_async(*channel, kEcho, std::to_string(t * 1'000'000 + round * 1000 + i)));
        }
        for (int i = 0; i < 50; ++i) {
          Reply reply = calls[static_cast<size_t>(i)].wait();
          if (reply.body == std::to_string(t * 1'000'000 + round * 1000 + i)) ++good;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, 4 * 50 * 50);
}

TEST_P(Rpc, PipelinesPayloads) {
  auto channel = connect();
  constexpr size_t kCalls = 60;
  constexpr size_t kSize = 300'001;
  std::vector<std::byte> source = random_bytes(kCalls * kSize, 5);
  std::vector<std::byte> sink(source.size());
  Region from = Channel::register_memory(source.data(), source.size());
  Region to = Channel::register_memory(sink.data(), sink.size());
  std::vector<Pending> calls;
  for (size_t i = 0; i < kCalls; ++i) {
    CallSpec spec;
    spec.method = kMirror;
    spec.source = {{from, i * kSize, kSize}};
    spec.sink = {{to, i * kSize, kSize}};
    calls.push_back(call_async(*channel, std::move(spec)));
  }
  for (auto& pending : calls) ASSERT_TRUE(pending.wait().status.ok());
  EXPECT_TRUE(sink == source);
}

TEST_P(Rpc, TheChannelHoldsAtMost256Calls) {
  auto channel = connect();
  std::vector<Pending> held;
  for (int i = 0; i < 256; ++i) held.push_back(call_async(*channel, kHold, ""));
  EXPECT_EQ(call(*channel, kEcho, "one more").status.code(), kBusy);
  server_->wait_for_held(256);
  EXPECT_EQ(server_->statistics().requests_in_flight, 256u);
  server_->release_all([](ServerCall& c) { c.reply(Status(), "ok"); });
  for (auto& pending : held) EXPECT_EQ(pending.wait().body, "ok");
  EXPECT_EQ(call(*channel, kEcho, "room").body, "room");
}

TEST_P(Rpc, AConnectionIsNotReadBeyond64MiBInFlight) {
  auto channel = connect();
  constexpr size_t kSize = 4 << 20;
  std::vector<std::byte> source(kSize);
  Region from = Channel::register_memory(source.data(), source.size());
  std::vector<Pending> held;
  for (int i = 0; i < 20; ++i) {
    CallSpec spec;
    spec.method = kHold;
    spec.source = {{from, 0, kSize}};
    held.push_back(call_async(*channel, std::move(spec)));
  }
  server_->wait_for_held(16);  // 16 x (4 MiB + header) reaches the bound
  Pending probe = call_async(*channel, kEcho, "x");
  EXPECT_EQ(server_->held(), 16u);
  EXPECT_FALSE(probe.done());
  size_t answered = 0;
  while (answered < held.size()) {
    server_->release([](ServerCall& c) { c.reply(Status(), ""); });
    ++answered;
  }
  for (auto& pending : held) EXPECT_TRUE(pending.wait().status.ok());
  EXPECT_EQ(probe.wait().body, "x");
  server_->wait_until([&] { return server_->statistics().requests_in_flight == 0; });
}

TEST_P(Rpc, WrongArgumentsAreRefusedLocally) {
  auto channel = connect();
  CallSpec capability;
  capability.capability = "short";
  EXPECT_EQ(call(*channel, std::move(capability)).status.code(), kBadRequest);
  EXPECT_EQ(call(*channel, kEcho, std::string((4 << 20) + 1, 'x')).status.code(), kBadRequest);
  Region region = Channel::register_memory(nullptr, SIZE_MAX);
  CallSpec sink;
  sink.sink = {{region, 0, 5 << 20}};
  EXPECT_EQ(call(*channel, std::move(sink)).status.code(), kBadRequest);
  CallSpec source;
  source.source = {{region, 0, 5 << 20}};
  EXPECT_EQ(call(*channel, std::move(source)).status.code(), kBadRequest);
}

TEST_P(Rpc, ATooLargeReplyBecomesAnError) {
  auto channel = connect();
  EXPECT_EQ(call(*channel, kHugeReply, "").status.code(), static_cast<uint32_t>(EMSGSIZE));
  EXPECT_EQ(call(*channel, kEcho, "still here").body, "still here");
}

TEST_P(Rpc, ADeadlineEndsACallAndALateReplyIsDropped) {
  auto channel = connect();
  std::vector<std::byte> sink(100'000, std::byte{0x11});
  Region to = Channel::register_memory(sink.data(), sink.size());
  // On a slow machine the first deadlines may pass before the server has the call.
  for (int64_t patience_ns = 20'000'000; server_->held() == 0; patience_ns *= 2) {
    CallSpec spec;
    spec.method = kHold;
    spec.sink = {{to, 0, sink.size()}};
    spec.deadline_ns = now_ns() + patience_ns;
    EXPECT_EQ(call(*channel, std::move(spec)).status.code(), kTimedOut);
  }
  server_->release([&](ServerCall& c) {
    Buffer data = Buffer::allocate(c.sink_length());
    std::memset(data.data(), 0x22, data.size());
    c.push(data);
    c.reply(Status(), "");
  });
  EXPECT_EQ(call(*channel, kEcho, "after").body, "after");
  EXPECT_TRUE(std::all_of(sink.begin(), sink.end(), [](auto b) { return b == std::byte{0x11}; }));
}

TEST_P(Rpc, DeadlinesFireInTheirOwnOrder) {
  auto channel = connect();
  int64_t now = now_ns();
  std::vector<Pending> calls;
  for (int64_t ms : {60, 20, 40}) {
    CallSpec spec;
    spec.method = kHold;
    spec.deadline_ns = now + ms * 1'000'000;
    calls.push_back(call_async(*channel, std::move(spec)));
  }
  EXPECT_EQ(calls[1].wait().status.code(), kTimedOut);
  EXPECT_EQ(calls[2].wait().status.code(), kTimedOut);
  EXPECT_EQ(calls[0].wait().status.code(), kTimedOut);
  EXPECT_GE(now_ns(), now + 60'000'000);
}

TEST_P(Rpc, TheServerSeesTheDeadline) {
  auto channel = connect();
  CallSpec spec;
  spec.method = kDeadline;
  spec.deadline_ns = now_ns() + 3'000'000'000;
  int64_t left = std::stoll(call(*channel, std::move(spec)).body);
  EXPECT_LE(left, 3'000'000'000);
  EXPECT_GT(left, 0);
}

TEST_P(Rpc, ASourceIsNotReadAfterTheDeadline) {
  // The server stops reading (its hands are full), so later requests stay queued here.
  auto channel = connect();
  constexpr size_t kSize = 4 << 20;
  std::vector<Pending> calls;
  auto source = std::make_unique<std::vector<std::byte>>(random_bytes(kSize, 6));
  Region from = Channel::register_memory(source->data(), source->size());
  for (int i = 0; i < 40; ++i) {
    CallSpec spec;
    spec.method = kHold;
    spec.source = {{from, 0, kSize}};
    spec.deadline_ns = now_ns() + 300'000'000;
    calls.push_back(call_async(*channel, std::move(spec)));
  }
  for (auto& pending : calls) EXPECT_EQ(pending.wait().status.code(), kTimedOut);
  source.reset();  // a read of it from now on is caught by the address sanitizer
  server_->release_all_ever([](ServerCall& c) { c.reply(Status(), ""); });
  EXPECT_EQ(call(*channel, kEcho, "after").body, "after");
  EXPECT_EQ(server_->statistics().bad_frames, 0u);
}

TEST_P(Rpc, AServerThatEndsFailsOpenCallsAndComesBack) {
  auto channel = connect();
  EXPECT_EQ(call(*channel, kEcho, "1").body, "1");
  for (int round = 0; round < 3; ++round) {
    Pending held = call_async(*channel, kHold, "");
    server_->wait_for_held(1);
    restart();
    EXPECT_EQ(held.wait().status.code(), kConnectionLost);
    EXPECT_EQ(call(*channel, kEcho, "2").body, "2");
    EXPECT_TRUE(channel->healthy());
  }
}

TEST_P(Rpc, NobodyThere) {
  auto channel = connect();
  bound_ = server_->address();
  server_.reset();
  for (int i = 0; i < 5; ++i) {
    Reply reply = call(*channel, kEcho, "");
    EXPECT_EQ(reply.status.code(), kConnectionLost);
    EXPECT_NE(reply.status.detail().find("cannot connect to " + bound_), std::string::npos)
        << reply.status.to_string();
    EXPECT_FALSE(channel->healthy());
  }
  start();
  EXPECT_EQ(call(*channel, kEcho, "back").body, "back");
  EXPECT_TRUE(channel->healthy());
}

TEST_P(Rpc, AnotherClusterIsRefused) {
  auto channel = connect(std::string(16, 'd'));
  std::vector<Pending> calls;
  for (int i = 0; i < 20; ++i) calls.push_back(call_async(*channel, kEcho, std::string(1000, 'x')));
  for (auto& pending : calls) {
    Reply reply = pending.wait();
    EXPECT_EQ(reply.status.code(), kWrongCluster) << reply.status.to_string();
  }
  EXPECT_EQ(server_->statistics().requests, 0u);
  EXPECT_FALSE(channel->healthy());
}

TEST_P(Rpc, AClientWithoutAClusterIsTakenAServerIsNot) {
  EXPECT_EQ(call(*connect(""), kEcho, "x").body, "x");
  Identity server = identity("", Role::kStorage, 3);
  auto channel = std::move(Channel::create(client_->reactor(), server_->address(), server)).value();
  EXPECT_EQ(call(*channel, kEcho, "x").status.code(), kWrongCluster);
}

TEST_P(Rpc, DroppingAChannelEndsItsCalls) {
  auto channel = connect();
  Pending held = call_async(*channel, kHold, "");
  server_->wait_for_held(1);
  channel.reset();
  EXPECT_EQ(held.wait().status.code(), kShuttingDown);
  // The server's side of the call outlives the connection.
  server_->wait_until([&] { return server_->statistics().open_connections == 0; });
  server_->release([](ServerCall& c) { c.reply(Status(), "to nobody"); });
}

TEST_P(Rpc, ACallbackMayDropTheChannelAndCallAgain) {
  auto channel = connect();
  auto second = connect();
  std::promise<Reply> done;
  CallSpec spec;
  spec.method = kEcho;
  channel->call(std::move(spec), [&, channel](Reply) mutable {
    channel.reset();
    CallSpec again;
    again.method = kEcho;
    again.body = "again";
    second->call(std::move(again), [&](Reply reply) { done.set_value(std::move(reply)); });
  });
  channel.reset();
  EXPECT_EQ(done.get_future().get().body, "again");
}

TEST_P(Rpc, ServerCallsOutliveTheServer) {
  auto channel = connect();
  Pending held = call_async(*channel, kHold, "");
  server_->wait_for_held(1);
  auto calls = server_->take_held();
  server_->stop_serving();
  EXPECT_EQ(held.wait().status.code(), kConnectionLost);
  std::thread([&] {
    calls[0]->reply(Status(), "too late");
    calls.clear();
  }).join();
}

TEST_P(Rpc, StatisticsCount) {
  auto channel = connect();
  for (int i = 0; i < 10; ++i) (void)call(*channel, kEcho, "12345");
  auto seen = server_->statistics();
  EXPECT_EQ(seen.connections, 1u);
  EXPECT_EQ(seen.open_connections, 1u);
  EXPECT_EQ(seen.requests, 10u);
  EXPECT_EQ(seen.bytes_in, 64u + 40u + 10u * (64u + 5u));
  server_->wait_until([&] { return server_->statistics().bytes_out == 64 + 40 + 10 * (64 + 5); });
  channel.reset();
  server_->wait_until([&] { return server_->statistics().open_connections == 0; });
}

TEST(RpcAddress, BadOnesAreNamed) {
  auto thread = std::move(ReactorThread::create("client")).value();
  Identity self = identity("", Role::kClient, 0);
  for (const char* bad :
       {"", "127.0.0.1:80", "tcp://", "tcp://:1", "tcp://127.0.0.1", "tcp://127.0.0.1:x",
        "tcp://127.0.0.1:65536", "tcp://127.0.0.1:-1", "unix://", "unix://relative",
        "http://127.0.0.1:80", "tcp://no such host:1"}) {
    auto channel = Channel::create(thread->reactor(), bad, self);
    ASSERT_FALSE(channel.ok()) << bad;
    EXPECT_EQ(channel.status().code(), static_cast<uint32_t>(EINVAL)) << bad;
  }
  std::string long_path = "unix:///" + std::string(107, 'x');
  EXPECT_FALSE(Channel::create(thread->reactor(), long_path, self).ok());
}

TEST(RpcAddress, IdentitiesMustHaveTheirLength) {
  auto thread = std::move(ReactorThread::create("client")).value();
  Identity self = identity("", Role::kClient, 0);
  self.cluster_id = "short";
  EXPECT_FALSE(Channel::create(thread->reactor(), "tcp://127.0.0.1:1", self).ok());
  self = identity("", Role::kClient, 0);
  self.instance_id = "";
  EXPECT_FALSE(Channel::create(thread->reactor(), "tcp://127.0.0.1:1", self).ok());
}

TEST(RpcAddress, IPv6AndNamesWork) {
  auto client = std::move(ReactorThread::create("client")).value();
  TestServer named("tcp://localhost:0", "");
  auto channel = open_channel(*client, named.address(), "");
  EXPECT_EQ(call(*channel, kEcho, "x").body, "x");
}

TEST(RpcAddress, AUnixSocketOfADeadServerIsReplaced) {
  SocketPath path;
  {
    TestServer first(path.address(), "");
    // Somebody listens: refused.
    auto thread = std::move(ReactorThread::create("second")).value();
    auto second = std::move(RpcServer::create(thread->reactor(), identity("", Role::kStorage, 1),
                                              [](ServerCallPtr) {}))
                      .value();
    EXPECT_EQ(second->listen(path.address()).status().code(), static_cast<uint32_t>(EADDRINUSE));
  }
  path.leave_stale_socket();
  TestServer third(path.address(), "");
  auto client = std::move(ReactorThread::create("client")).value();
  EXPECT_EQ(call(*open_channel(*client, third.address(), ""), kEcho, "x").body, "x");
}

}  // namespace
}  // namespace fs3::net
