#include "base/reactor.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>
#include <vector>

namespace fs3 {
namespace {

constexpr int64_t kMs = 1'000'000;

std::unique_ptr<Reactor> make() { return std::move(Reactor::create("test")).value(); }

struct Pipe {
  Pipe() { EXPECT_EQ(pipe(ends), 0); }
  ~Pipe() {
    close(ends[0]);
    close(ends[1]);
  }
  void ring() { EXPECT_EQ(write(ends[1], "x", 1), 1); }
  void take() {
    char c;
    EXPECT_EQ(read(ends[0], &c, 1), 1);
  }
  int ends[2];
};

struct Handler : Reactor::FdHandler {
  explicit Handler(Function<void(uint32_t)> f) : function(std::move(f)) {}
  void on_events(uint32_t events) override { function(events); }
  Function<void(uint32_t)> function;
};

TEST(Reactor, RunsPostsInOrderAndStops) {
  auto reactor = make();
  std::string seen;
  reactor->post([&] { seen += 'a'; });
  reactor->post([&] {
    seen += 'b';
    EXPECT_TRUE(reactor->on_thread());
    reactor->post([&] { seen += 'd'; });
    reactor->post([&] {
      seen += 'e';
      reactor->stop();
    });
    seen += 'c';
  });
  EXPECT_FALSE(reactor->on_thread());
  reactor->run();
  EXPECT_EQ(seen, "abcde");
  EXPECT_FALSE(reactor->on_thread());
}

TEST(Reactor, QueuedPostsRunBeforeTheEnd) {
  auto reactor = make();
  int ran = 0;
  reactor->post([&] {
    reactor->stop();
    reactor->post([&] {
      ++ran;
      reactor->post([&] { ++ran; });
      reactor->defer([&] { ++ran; });
    });
  });
  reactor->run();
  EXPECT_EQ(ran, 3);
}

TEST(Reactor, StopBeforeRunEndsAtOnce) {
  auto reactor = make();
  bool ran = false;
  reactor->post([&] { ran = true; });
  reactor->stop();
  reactor->run();
  EXPECT_TRUE(ran);
}

TEST(Reactor, PostsOfEachThreadKeepTheirOrder) {
  auto thread = std::move(ReactorThread::create("ordered")).value();
  constexpr int kThreads = 4;
  constexpr int kPosts = 20'000;
  std::vector<int> last(kThreads, -1);
  std::atomic<int> wrong{0};
  std::vector<std::thread> posters;
  for (int t = 0; t < kThreads; ++t) {
    posters.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        thread->reactor().post([&, t, i] {
          if (last[static_cast<size_t>(t)] != i - 1) ++wrong;
          last[static_cast<size_t>(t)] = i;
        });
      }
    });
  }
  for (auto& poster : posters) poster.join();
  thread.reset();  // runs what is queued
  EXPECT_EQ(wrong, 0);
  for (int value : last) EXPECT_EQ(value, kPosts - 1);
}

TEST(Reactor, DeferRunsAfterTheEventsOfTheRound) {
  auto reactor = make();
  std::string seen;
  Pipe a, b;
  Handler first([&](uint32_t) {
    a.take();
    seen += '1';
    reactor->defer([&] { seen += 'D'; });
  });
  Handler second([&](uint32_t) {
    b.take();
    seen += '2';
    reactor->defer([&] {
      seen += 'E';
      reactor->defer([&] { seen += 'F'; });
      reactor->post([&] {
        seen += 'p';
        reactor->stop();
      });
    });
  });
  ASSERT_TRUE(reactor->add_fd(a.ends[0], EPOLLIN, &first).ok());
  ASSERT_TRUE(reactor->add_fd(b.ends[0], EPOLLIN, &second).ok());
  a.ring();
  b.ring();
  reactor->run();
  EXPECT_TRUE(seen == "12DEFp" || seen == "21EFDp" || seen == "21EDFp") << seen;
}

TEST(Reactor, RemovedHandlerGetsNothingEvenWhenItsEventWasFetched) {
  auto reactor = make();
  Pipe a, b;
  int calls = 0;
  // Both are ready in the same round; whoever runs first removes the other.
  Handler first([&](uint32_t) {
    ++calls;
    reactor->remove_fd(b.ends[0]);
    reactor->stop();
  });
  Handler second([&](uint32_t) {
    ++calls;
    reactor->remove_fd(a.ends[0]);
    reactor->stop();
  });
  ASSERT_TRUE(reactor->add_fd(a.ends[0], EPOLLIN, &first).ok());
  ASSERT_TRUE(reactor->add_fd(b.ends[0], EPOLLIN, &second).ok());
  a.ring();
  b.ring();
  reactor->run();
  EXPECT_EQ(calls, 1);
}

TEST(Reactor, ReusedDescriptorDoesNotInheritEvents) {
  auto reactor = make();
  Pipe a, b;
  int wrong = 0;
  Handler fresh([&](uint32_t) { ++wrong; });
  auto swap = [&](Pipe& other) {
    // The other descriptor's event is already fetched: register it anew with nothing to report.
    reactor->remove_fd(other.ends[0]);
    other.take();
    EXPECT_TRUE(reactor->add_fd(other.ends[0], EPOLLIN, &fresh).ok());
    reactor->stop();
  };
  Handler first([&](uint32_t) { swap(b); });
  Handler second([&](uint32_t) { swap(a); });
  ASSERT_TRUE(reactor->add_fd(a.ends[0], EPOLLIN, &first).ok());
  ASSERT_TRUE(reactor->add_fd(b.ends[0], EPOLLIN, &second).ok());
  a.ring();
  b.ring();
  reactor->run();
  EXPECT_EQ(wrong, 0);
}

TEST(Reactor, ModifyChangesTheMask) {
  auto reactor = make();
  Pipe a;
  std::vector<uint32_t> seen;
  Handler handler([&](uint32_t events) {
    seen.push_back(events);
    reactor->stop();
  });
  ASSERT_TRUE(reactor->add_fd(a.ends[1], 0, &handler).ok());
  reactor->after(1 * kMs, [&] { EXPECT_TRUE(reactor->modify_fd(a.ends[1], EPOLLOUT).ok()); });
  reactor->run();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0], static_cast<uint32_t>(EPOLLOUT));
  reactor->remove_fd(a.ends[1]);
}

TEST(Reactor, AddingABadDescriptorFails) {
  auto reactor = make();
  Handler handler([](uint32_t) {});
  EXPECT_EQ(reactor->add_fd(1000, EPOLLIN, &handler).code(), static_cast<uint32_t>(EBADF));
  Pipe a;
  EXPECT_TRUE(reactor->add_fd(a.ends[0], EPOLLIN, &handler).ok());
}

TEST(Reactor, TimersFireInOrderOfTimeAndNeverEarly) {
  auto reactor = make();
  std::string seen;
  int64_t start = now_ns();
  reactor->after(6 * kMs, [&] {
    seen += '3';
    EXPECT_GE(now_ns(), start + 6 * kMs);
    reactor->stop();
  });
  reactor->after(2 * kMs, [&] { seen += '2'; });
  reactor->after(-5, [&] { seen += '0'; });
  auto cancelled = reactor->after(3 * kMs, [&] { seen += 'X'; });
  reactor->cancel(cancelled);
  reactor->cancel(cancelled);
  reactor->cancel(123456);
  reactor->after(1 * kMs, [&] { seen += '1'; });
  reactor->run();
  EXPECT_EQ(seen, "0123");
}

TEST(Reactor, ManyCancelledTimersDoNotStay) {
  auto reactor = make();
  int fired = 0;
  reactor->post([&] {
    for (int i = 0; i < 100'000; ++i) reactor->cancel(reactor->after(3'600'000 * kMs, [] {}));
    reactor->after(1, [&] {
      ++fired;
      reactor->stop();
    });
  });
  reactor->run();
  EXPECT_EQ(fired, 1);
}

TEST(Reactor, PostFromAnotherThreadWakesASleeper) {
  auto thread = std::move(ReactorThread::create("sleeper")).value();
  for (int i = 0; i < 1000; ++i) {
    std::promise<void> done;
    thread->reactor().post([&] { done.set_value(); });
    done.get_future().get();
  }
}

TEST(Reactor, RunAndWaitRunsOnTheThreadOrAtOnce) {
  auto reactor = make();
  bool on_thread = true;
  reactor->run_and_wait([&] { on_thread = reactor->on_thread(); });
  EXPECT_FALSE(on_thread);  // nobody is in run() yet
  auto thread = std::move(ReactorThread::create("waited")).value();
  for (int i = 0; i < 100; ++i) {
    bool ran = false;
    thread->reactor().run_and_wait(
        [&] { thread->reactor().run_and_wait([&] { ran = thread->reactor().on_thread(); }); });
    ASSERT_TRUE(ran);
  }
  thread->reactor().stop();
  for (int i = 0; i < 100; ++i) {  // while it ends and after it ended
    bool ran = false;
    thread->reactor().run_and_wait([&] { ran = true; });
    ASSERT_TRUE(ran);
  }
}

TEST(Reactor, DestructionDropsWhatNeverRan) {
  auto token = std::make_shared<int>(1);
  {
    auto reactor = make();
    reactor->post([token] {});
    reactor->defer([token] {});
    reactor->after(1, [token] {});
    EXPECT_EQ(token.use_count(), 4);
  }
  EXPECT_EQ(token.use_count(), 1);
}

TEST(Reactor, AFunctionDroppedAtTheEndMayPost) {
  struct Poster {
    Reactor* reactor;
    std::shared_ptr<int> token;
    Poster(Reactor* r, std::shared_ptr<int> t) : reactor(r), token(std::move(t)) {}
    Poster(Poster&& other) noexcept : reactor(other.reactor), token(std::move(other.token)) {}
    ~Poster() {
      if (token) reactor->post([token = token] {});
    }
  };
  auto token = std::make_shared<int>(1);
  {
    auto reactor = make();
    reactor->post([poster = Poster(reactor.get(), token)] {});
  }
  EXPECT_EQ(token.use_count(), 1);
}

}  // namespace
}  // namespace fs3
