#include "net/queued_server.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "net/blocking_client.h"
#include "rpc_fixture.h"

namespace fs3::net {
namespace {

constexpr int64_t kLong = 20'000'000'000;

class Queued : public testing::Test {
 protected:
  void start(size_t queue_max) {
    server_ =
        std::move(QueuedServer::create("queued", identity("", Role::kMeta, 1), queue_max)).value();
    auto bound = server_->listen("tcp://127.0.0.1:0");
    ASSERT_TRUE(bound.ok()) << bound.status().to_string();
    address_ = *bound;
    channel_ = open_channel(*client_, address_, "");
  }
  std::vector<QueuedServer::Taken> take(size_t count) {
    std::vector<QueuedServer::Taken> all;
    int64_t until = now_ns() + kLong;
    while (all.size() < count) {
      auto some = server_->take(count - all.size(), kLong);
      if (some.empty() && now_ns() > until) {
        ADD_FAILURE() << "nothing came";
        break;
      }
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }

  std::unique_ptr<QueuedServer> server_;
  std::string address_;
  std::unique_ptr<ReactorThread> client_ = std::move(ReactorThread::create("client")).value();
  std::shared_ptr<Channel> channel_;
};

TEST_F(Queued, HandsOutBatchesAndAnswersThem) {
  start(100);
  std::vector<Pending> calls;
  for (int i = 0; i < 20; ++i) calls.push_back(call_async(*channel_, kEcho, std::to_string(i)));
  auto taken = take(20);
  std::vector<QueuedServer::Answer> answers;
  for (auto& [handle, call] : taken) {
    EXPECT_EQ(call->method(), kEcho);
    answers.push_back({handle, Status(), "answer " + std::string(call->body())});
  }
  answers[3].status = Status(ENOENT, "meta/lookup", "no entry");
  EXPECT_TRUE(server_->answer(std::move(answers)).ok());
  for (int i = 0; i < 20; ++i) {
    Reply reply = calls[static_cast<size_t>(i)].wait();
    if (i == 3) {
      EXPECT_EQ(reply.status.to_string(), "meta/lookup: ENOENT: no entry");
    } else {
      EXPECT_EQ(reply.body, "answer " + std::to_string(i));
    }
  }
  auto seen = server_->statistics();
  EXPECT_EQ(seen.waiting, 0u);
  EXPECT_EQ(seen.handed_out, 0u);
  EXPECT_EQ(seen.rpc.requests, 20u);
}

TEST_F(Queued, TakeReturnsEmptyAfterItsTime) {
  start(100);
  EXPECT_TRUE(server_->take(10, 0).empty());
  EXPECT_TRUE(server_->take(10, 1'000'000).empty());
}

TEST_F(Queued, AFullQueueSaysBusy) {
  start(2);
  Pending first = call_async(*channel_, kEcho, "1");
  Pending second = call_async(*channel_, kEcho, "2");
  EXPECT_EQ(call(*channel_, kEcho, "3").status.code(), kBusy);
  for (auto& [handle, c] : take(2)) EXPECT_TRUE(server_->answer({{handle, Status(), "ok"}}).ok());
  EXPECT_EQ(first.wait().body, "ok");
  EXPECT_EQ(second.wait().body, "ok");
  EXPECT_EQ(server_->statistics().busy, 1u);
}

TEST_F(Queued, WhatIsLateIsNotHandedOut) {
  start(10);
  CallSpec spec;
  spec.method = kEcho;
  spec.body = "late";
  spec.deadline_ns = now_ns() + 10'000'000;
  EXPECT_EQ(call(*channel_, std::move(spec)).status.code(), kTimedOut);
  // The server's own clock on the deadline has passed too once a later call's has.
  int64_t past = now_ns() + 20'000'000;
  while (now_ns() < past) std::this_thread::yield();
  Pending fresh = call_async(*channel_, kEcho, "fresh");
  auto taken = take(1);
  ASSERT_EQ(taken.size(), 1u);
  EXPECT_EQ(taken[0].call->body(), "fresh");
  EXPECT_EQ(server_->statistics().expired, 1u);
  EXPECT_TRUE(server_->answer({{taken[0].handle, Status(), ""}}).ok());
  EXPECT_TRUE(fresh.wait().status.ok());
}

TEST_F(Queued, AnUnknownHandleIsNamedAndTheOthersAreAnswered) {
  start(10);
  Pending pending = call_async(*channel_, kEcho, "");
  auto taken = take(1);
  Status status =
      server_->answer({{taken[0].handle + 7, Status(), ""}, {taken[0].handle, Status(), "y"}});
  EXPECT_EQ(status.code(), static_cast<uint32_t>(EINVAL));
  EXPECT_EQ(pending.wait().body, "y");
  EXPECT_EQ(server_->answer({{taken[0].handle, Status(), ""}}).code(),
            static_cast<uint32_t>(EINVAL));
}

TEST_F(Queued, StopAnswersEverybodyAndWakesTakers) {
  start(10);
  Pending handed_out = call_async(*channel_, kEcho, "1");
  auto taken = take(1);
  Pending waiting = call_async(*channel_, kEcho, "2");
  while (server_->statistics().waiting == 0) std::this_thread::yield();
  server_->stop();
  EXPECT_EQ(handed_out.wait().status.code(), kShuttingDown);
  EXPECT_EQ(waiting.wait().status.code(), kShuttingDown);
  EXPECT_TRUE(server_->take(1, kLong).empty());
  EXPECT_TRUE(server_->answer({{taken[0].handle, Status(), ""}}).ok());  // too late, not wrong
  EXPECT_EQ(server_->listen("tcp://127.0.0.1:0").status().code(), kShuttingDown);
  EXPECT_EQ(server_->statistics().rpc.requests, 2u);
  server_->stop();
}

TEST_F(Queued, ATakerIsWokenByStop) {
  start(10);
  std::thread taker([&] { EXPECT_TRUE(server_->take(1, kLong).empty()); });
  server_->stop();
  taker.join();
}

TEST_F(Queued, ManyTakersAndCallers) {
  start(10'000);
  std::atomic<bool> done{false};
  std::vector<std::thread> takers;
  for (int i = 0; i < 3; ++i) {
    takers.emplace_back([&] {
      while (!done) {
        std::vector<QueuedServer::Answer> answers;
        for (auto& [handle, c] : server_->take(16, 1'000'000)) {
          answers.push_back({handle, Status(), std::string(c->body())});
        }
        EXPECT_TRUE(server_->answer(std::move(answers)).ok());
      }
    });
  }
  std::vector<std::thread> callers;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] {
      auto client =
          std::move(BlockingClient::create(address_, identity("", Role::kClient, 0))).value();
      for (int n = 0; n < 500; ++n) {
        BlockingClient::Request request;
        request.method = kEcho;
        request.body = std::to_string(i * 1000 + n);
        if (client->call(std::move(request)).body == std::to_string(i * 1000 + n)) ++good;
      }
    });
  }
  for (auto& caller : callers) caller.join();
  done = true;
  for (auto& taker : takers) taker.join();
  EXPECT_EQ(good, 2000);
}

}  // namespace
}  // namespace fs3::net
