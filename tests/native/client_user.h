// A client of the fake cluster with blocking calls, for the tests of the native client.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <random>
#include <string>

#include "client_fixture.h"

namespace fs3::client {

// Starts a call and waits for its callback.
template <typename T>
inline T wait_for(std::function<void(Function<void(T)>)> start) {
  auto promise = std::make_shared<std::promise<T>>();
  auto future = promise->get_future();
  start([promise](T value) { promise->set_value(std::move(value)); });
  EXPECT_EQ(future.wait_for(std::chrono::seconds(60)), std::future_status::ready);
  return future.get();
}

inline std::string pattern(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  return bytes;
}

// A client of the cluster with blocking calls.
class User {
 public:
  explicit User(Options options) : client(std::move(Client::create(std::move(options))).value()) {}
  ~User() { client->shutdown(); }

  FileHandle open(FakeCluster& cluster, uint32_t flags = O_RDWR) {
    return client->open_handle(cluster.open_reply((flags & O_ACCMODE) != O_RDONLY), flags);
  }
  Result<size_t> write(const FileHandle& file, uint64_t offset, const std::string& bytes,
                       WriteAt at = WriteAt::kAsOpened) {
    return wait_for<Result<size_t>>([&](auto done) {
      client->write(file, offset, Buffer::copy_of(bytes.data(), bytes.size()), at, std::move(done));
    });
  }
  Result<std::string> read(const FileHandle& file, uint64_t offset, size_t length) {
    std::string bytes(length, '?');
    auto got = wait_for<Result<size_t>>([&](auto done) {
      client->read(file, offset, reinterpret_cast<std::byte*>(bytes.data()), length,
                   std::move(done));
    });
    if (!got.ok()) return got.status();
    bytes.resize(*got);
    return bytes;
  }
  Result<Appended> append(const FileHandle& file, const std::string& bytes,
                          AppendMode mode = AppendMode::kBuffered) {
    return wait_for<Result<Appended>>([&](auto done) {
      client->append(file, Buffer::copy_of(bytes.data(), bytes.size()), mode,
                     {client->new_call_name(), false}, std::move(done));
    });
  }
  Result<Appended> append_again(const FileHandle& file, const std::string& bytes,
                                Client::CallName name) {
    return wait_for<Result<Appended>>([&](auto done) {
      client->append(file, Buffer::copy_of(bytes.data(), bytes.size()), AppendMode::kBuffered,
                     {std::move(name), true}, std::move(done));
    });
  }
  Result<uint64_t> seek(const FileHandle& file, uint64_t offset, SeekFor what) {
    return wait_for<Result<uint64_t>>(
        [&](auto done) { client->seek(file, offset, what, std::move(done)); });
  }
  Status fallocate(const FileHandle& file, uint32_t mode, uint64_t offset, uint64_t length) {
    return wait_for<Status>(
        [&](auto done) { client->fallocate(file, mode, offset, length, std::move(done)); });
  }
  Result<uint64_t> copy(const FileHandle& from, uint64_t from_offset, const FileHandle& to,
                        uint64_t to_offset, uint64_t length) {
    return wait_for<Result<uint64_t>>([&](auto done) {
      client->copy_range(from, from_offset, to, to_offset, length, std::move(done));
    });
  }
  Status sync_all() {
    return wait_for<Status>([&](auto done) { client->sync_all(std::move(done)); });
  }
  Status flush(const FileHandle& file) {
    return wait_for<Status>([&](auto done) { client->flush(file, std::move(done)); });
  }
  Status fsync(const FileHandle& file) {
    return wait_for<Status>([&](auto done) { client->fsync(file, true, std::move(done)); });
  }
  Status close(const FileHandle& file) {
    return wait_for<Status>([&](auto done) { client->close(file, std::move(done)); });
  }
  Status settle() {
    return wait_for<Status>([&](auto done) { client->settle(42, std::move(done)); });
  }
  Result<std::string> lookup() {
    return wait_for<Result<std::string>>([&](auto done) {
      client->meta_call(pm::LOOKUP, "", 022, pm::LookupRequest().SerializeAsString(),
                        std::move(done));
    });
  }

  std::shared_ptr<Client> client;
};

class ClientTest : public testing::Test {
 protected:
  // What is written meanwhile stays dirty.
  void hold_writes(bool hold) {
    cluster.on_storage([hold](uint16_t method, size_t) {
      return hold && method == ps::WRITE ? Fault::kBusy : Fault::kNone;
    });
  }
  FakeCluster cluster;
  User user{cluster.options()};
};

}  // namespace fs3::client
