// Blocking use of things that live on a reactor, for tests.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <string>

#include "base/function.h"
#include "base/reactor.h"
#include "base/status.h"

namespace fs3::test {

// A fresh directory on the local disk, removed at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "fs3-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class ReactorHarness {
 public:
  ReactorHarness() {
    auto created = ReactorThread::create("test");
    EXPECT_TRUE(created.ok());
    thread_ = std::move(*created);
  }
  Reactor& reactor() { return thread_->reactor(); }

  // Runs `function` on the reactor's thread and returns what it returns.
  template <typename F>
  auto on(F function) -> decltype(function()) {
    std::promise<decltype(function())> promise;
    auto future = promise.get_future();
    reactor().post([&] {
      if constexpr (std::is_void_v<decltype(function())>) {
        function();
        promise.set_value();
      } else {
        promise.set_value(function());
      }
    });
    return future.get();
  }

  // Calls start(callback) on the reactor's thread and waits for the callback's value.
  template <typename T, typename F>
  T wait(F start) {
    auto promise = std::make_shared<std::promise<T>>();
    auto future = promise->get_future();
    reactor().post([start = std::move(start), promise]() mutable {
      start(Function<void(T)>([promise](T value) { promise->set_value(std::move(value)); }));
    });
    return future.get();
  }

 private:
  std::unique_ptr<ReactorThread> thread_;
};

#define ASSERT_OK(expression)                         \
  do {                                                \
    auto status_ = (expression);                      \
    ASSERT_TRUE(status_.ok()) << status_.to_string(); \
  } while (false)
#define EXPECT_OK(expression)                         \
  do {                                                \
    auto status_ = (expression);                      \
    EXPECT_TRUE(status_.ok()) << status_.to_string(); \
  } while (false)

}  // namespace fs3::test
