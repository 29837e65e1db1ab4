#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <set>
#include <thread>

#include "client_user.h"

namespace fs3::client {
namespace {

TEST_F(ClientTest, StripesWritesOverChunksAndReadsThemBack) {
  auto file = user.open(cluster);
  std::string bytes = pattern(5 * kChunk + 1000, 1);
  ASSERT_EQ(*user.write(file, 100, bytes), bytes.size());
  ASSERT_TRUE(user.flush(file).ok());
  EXPECT_EQ(cluster.chunk_count(), 6u);
  EXPECT_TRUE(cluster.chunk(0).substr(100) == bytes.substr(0, kChunk - 100));
  EXPECT_TRUE(cluster.chunk(5) == bytes.substr(5 * kChunk - 100));
  std::string expected = std::string(100, '\0') + bytes;
  EXPECT_TRUE(*user.read(file, 0, expected.size() + 10) == expected);
  EXPECT_TRUE(user.close(file).ok());
  EXPECT_EQ(cluster.settled_size(), expected.size());
}

TEST_F(ClientTest, HolesAndShortChunksAreZerosUpToTheEndOfFile) {
  cluster.put_chunk(0, "abc");
  cluster.set_size(2 * kChunk + 5);
  auto file = user.open(cluster, O_RDONLY);
  auto bytes = *user.read(file, 0, 10 * kChunk);
  EXPECT_TRUE(bytes == "abc" + std::string(2 * kChunk + 2, '\0'));
  EXPECT_TRUE(*user.read(file, 2 * kChunk + 5, 10) == "");
}

TEST_F(ClientTest, AReaderFollowsAFileThatGrowsElsewhere) {
  cluster.put_chunk(0, "0123456789");
  cluster.set_size(5);
  auto file = user.open(cluster, O_RDONLY);
  EXPECT_TRUE(*user.read(file, 0, 100) == "01234");
  cluster.set_size(10);
  // The size is asked again once what is known is older than a moment.
  while (*user.read(file, 0, 100) != "0123456789") std::this_thread::yield();
}

TEST_F(ClientTest, SmallWritesAreOneUpdate) {
  auto file = user.open(cluster);
  std::string all;
  for (int i = 0; i < 300; ++i) {
    std::string piece = pattern(97, static_cast<uint64_t>(i));
    ASSERT_TRUE(user.write(file, all.size(), piece).ok());
    all += piece;
  }
  EXPECT_TRUE(*user.read(file, 0, all.size()) == all);
  EXPECT_EQ(cluster.reads(), 0u);  // own dirty bytes need no server
  ASSERT_TRUE(user.flush(file).ok());
  EXPECT_EQ(cluster.updates().size(), 1u);
  EXPECT_TRUE(cluster.chunk(0) == all);
}

TEST_F(ClientTest, DirtyBytesAreSentWithoutFlushAfterAMoment) {
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "hello").ok());
  while (cluster.applied() == 0) std::this_thread::yield();
  EXPECT_TRUE(cluster.chunk(0) == "hello");
}

TEST_F(ClientTest, AWriterOverTheBoundWaitsForChains) {
  auto options = cluster.options();
  options.write_back_bytes = 2 * kChunk;
  User bounded(options);
  auto file = bounded.open(cluster);
  std::string bytes = pattern(kChunk, 3);
  for (uint64_t i = 0; i < 32; ++i) {
    ASSERT_TRUE(bounded.write(file, i * kChunk, bytes).ok());
    EXPECT_LE(bounded.client->statistics().dirty_bytes, 3 * kChunk);
  }
  ASSERT_TRUE(bounded.flush(file).ok());
  EXPECT_EQ(bounded.client->statistics().dirty_bytes, 0u);
  EXPECT_EQ(cluster.chunk_count(), 32u);
}

TEST_F(ClientTest, ALostAnswerIsRepeatedUnderTheSameIdentity) {
  std::atomic<int> left{3};
  cluster.on_storage([&](uint16_t method, size_t) {
    return method == ps::WRITE && left.fetch_sub(1) > 0 ? Fault::kDropReply : Fault::kNone;
  });
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "once").ok());
  ASSERT_TRUE(user.flush(file).ok());
  auto updates = cluster.updates();
  ASSERT_EQ(updates.size(), 4u);
  for (const Seen& update : updates) {
    EXPECT_EQ(update.sequence, updates[0].sequence);
    EXPECT_EQ(update.channel, updates[0].channel);
  }
  EXPECT_EQ(cluster.applied(), 1u);
}

TEST_F(ClientTest, TheIdentityStaysAcrossAChangeOfTheHead) {
  std::atomic<bool> lost{false};
  cluster.on_storage([&](uint16_t method, size_t node) {
    if (method != ps::WRITE || node != 0 || lost.exchange(true)) return Fault::kNone;
    return Fault::kDropReply;
  });
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "x").ok());
  auto flushed = std::async(std::launch::async, [&] { return user.flush(file); });
  while (!lost) std::this_thread::yield();
  cluster.set_serving({1, 2});
  EXPECT_TRUE(flushed.get().ok());
  std::set<uint64_t> sequences;
  for (const Seen& update : cluster.updates()) sequences.insert(update.sequence);
  EXPECT_EQ(sequences.size(), 1u);
  EXPECT_EQ(cluster.applied(), 1u);
}

TEST_F(ClientTest, AnotherChainVersionMeansNewRouting) {
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "first").ok());
  ASSERT_TRUE(user.flush(file).ok());
  size_t asked = cluster.meta_calls(pm::GET_ROUTING);
  cluster.set_serving({2, 1});
  ASSERT_TRUE(user.write(file, 0, "later").ok());
  ASSERT_TRUE(user.flush(file).ok());
  EXPECT_EQ(cluster.meta_calls(pm::GET_ROUTING), asked + 1);
  EXPECT_EQ(cluster.updates().back().node, 2u);
  EXPECT_TRUE(cluster.chunk(0) == "later");
}

TEST_F(ClientTest, ReadsGoOnWhenAReplicaDies) {
  cluster.put_chunk(0, pattern(kChunk, 5));
  cluster.set_size(kChunk);
  auto file = user.open(cluster, O_RDONLY);
  ASSERT_TRUE(user.read(file, 0, kChunk).ok());
  cluster.stop_node(1);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(*user.read(file, 0, kChunk) == cluster.chunk(0));
}

TEST_F(ClientTest, WritesPauseUntilTheHeadIsReplaced) {
  cluster.stop_node(0);
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "x").ok());
  auto flushed = std::async(std::launch::async, [&] { return user.flush(file); });
  while (user.client->statistics().data_retries < 3) std::this_thread::yield();
  cluster.set_serving({1, 2});
  EXPECT_TRUE(flushed.get().ok());
  EXPECT_TRUE(cluster.chunk(0) == "x");
}

TEST_F(ClientTest, BusyAndDamageOnOneReplicaAreRepeatedElsewhere) {
  cluster.put_chunk(0, "data");
  cluster.set_size(4);
  std::atomic<int> count{0};
  cluster.on_storage([&](uint16_t, size_t) {
    int n = count.fetch_add(1);
    return n == 0 ? Fault::kBusy : n == 1 ? Fault::kIoError : Fault::kNone;
  });
  auto file = user.open(cluster, O_RDONLY);
  EXPECT_TRUE(*user.read(file, 0, 4) == "data");
}

TEST_F(ClientTest, DamageEverywhereIsAnError) {
  cluster.set_size(4);
  cluster.on_storage([](uint16_t, size_t) { return Fault::kIoError; });
  auto file = user.open(cluster, O_RDONLY);
  EXPECT_EQ(user.read(file, 0, 4).status().code(), uint32_t{EIO});
}

TEST_F(ClientTest, ADeniedCapabilityIsRenewedOnce) {
  cluster.put_chunk(0, "data");
  cluster.set_size(4);
  std::atomic<bool> denied{false};
  cluster.on_storage(
      [&](uint16_t, size_t) { return denied.exchange(true) ? Fault::kNone : Fault::kDenied; });
  auto reader = user.open(cluster, O_RDONLY);
  EXPECT_TRUE(*user.read(reader, 0, 4) == "data");
  EXPECT_EQ(cluster.meta_calls(pm::OPEN), 1u);
  denied = false;
  auto writer = user.open(cluster, O_RDWR);
  ASSERT_TRUE(user.write(writer, 0, "DATA").ok());
  ASSERT_TRUE(user.flush(writer).ok());
  EXPECT_EQ(cluster.meta_calls(pm::SYNC), 1u);
}

TEST_F(ClientTest, ATokenPastHalfItsLifeIsRenewedInTheBackground) {
  cluster.put_chunk(0, "data");
  cluster.set_size(4);
  auto file = user.client->open_handle(cluster.open_reply(false, 1), O_RDONLY);
  std::this_thread::yield();
  while (cluster.meta_calls(pm::OPEN) == 0) ASSERT_TRUE(user.read(file, 0, 4).ok());
}

TEST_F(ClientTest, AWriteBackErrorReachesEveryHandleOnce) {
  auto one = user.open(cluster);
  auto two = user.open(cluster);
  cluster.on_storage([](uint16_t, size_t) { return Fault::kNoSpace; });
  ASSERT_TRUE(user.write(one, 0, "lost").ok());
  while (user.client->statistics().dirty_bytes > 0) std::this_thread::yield();
  EXPECT_EQ(user.flush(one).code(), uint32_t{ENOSPC});
  EXPECT_TRUE(user.flush(one).ok());
  EXPECT_EQ(user.close(two).code(), uint32_t{ENOSPC});
  auto later = user.open(cluster);
  EXPECT_TRUE(user.fsync(later).ok());
}

TEST_F(ClientTest, WriteThroughReportsItsOwnError) {
  auto file = user.open(cluster, O_RDWR | O_DIRECT);
  ASSERT_TRUE(user.write(file, 0, "kept").ok());
  EXPECT_TRUE(cluster.chunk(0) == "kept");
  cluster.on_storage([](uint16_t, size_t) { return Fault::kNoSpace; });
  EXPECT_EQ(user.write(file, 0, "lost").status().code(), uint32_t{ENOSPC});
  cluster.on_storage(nullptr);
  EXPECT_TRUE(user.close(file).ok());
  EXPECT_TRUE(*user.read(user.open(cluster), 0, 4) == "kept");
}

// Found by register histories over two mounts: a direct read returned bytes of a direct write that
// was still on its way, and the other mount read the older ones afterwards.
TEST_F(ClientTest, ADirectReadShowsNothingUnacknowledged) {
  auto file = user.open(cluster, O_RDWR | O_DIRECT);
  ASSERT_TRUE(user.write(file, 0, "kept").ok());
  std::atomic<Fault> fault{Fault::kBusy};
  cluster.on_storage(
      [&](uint16_t method, size_t) { return method == ps::WRITE ? fault.load() : Fault::kNone; });
  std::promise<Status> written;
  user.client->write(file, 0, Buffer::copy_of("lost", 4), WriteAt::kAsOpened,
                     [&](Result<size_t> result) { written.set_value(result.status()); });
  std::string bytes(4, '?');
  std::promise<Result<size_t>> done;
  user.client->read(file, 0, reinterpret_cast<std::byte*>(bytes.data()), 4,
                    [&](Result<size_t> result) { done.set_value(std::move(result)); });
  fault = Fault::kNoSpace;
  EXPECT_EQ(written.get_future().get().code(), uint32_t{ENOSPC});
  EXPECT_EQ(*done.get_future().get(), 4u);
  EXPECT_TRUE(bytes == "kept");
}

TEST_F(ClientTest, ADirectReadSeesWhatWasWrittenBufferedBefore) {
  auto buffered = user.open(cluster);
  ASSERT_TRUE(user.write(buffered, 0, "bytes").ok());
  EXPECT_TRUE(*user.read(user.open(cluster, O_RDWR | O_DIRECT), 0, 5) == "bytes");
  EXPECT_TRUE(cluster.chunk(0) == "bytes");
}

TEST_F(ClientTest, ADuplicateThatIsTooOldIsWrittenUnderAFreshIdentity) {
  std::atomic<bool> told{false};
  cluster.on_storage([&](uint16_t method, size_t) {
    return method == ps::WRITE && !told.exchange(true) ? Fault::kDuplicateOld : Fault::kNone;
  });
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "bytes").ok());
  EXPECT_TRUE(user.flush(file).ok());
  EXPECT_TRUE(cluster.chunk(0) == "bytes");
}

TEST_F(ClientTest, AnUnknownOutcomeKeepsTheChannelOfTheChunk) {
  auto options = cluster.options();
  options.data_deadline_ns = 50'000'000;
  User hasty(options);
  cluster.on_storage([](uint16_t method, size_t) {
    return method == ps::WRITE ? Fault::kDropReply : Fault::kNone;
  });
  auto file = hasty.open(cluster);
  ASSERT_TRUE(hasty.write(file, 0, "one").ok());
  EXPECT_EQ(hasty.flush(file).code(), uint32_t{kTimedOut});
  cluster.on_storage(nullptr);
  ASSERT_TRUE(hasty.write(file, 0, "two").ok());
  ASSERT_TRUE(hasty.flush(file).ok());
  auto updates = cluster.updates();
  EXPECT_EQ(updates.back().channel, updates.front().channel);
  EXPECT_EQ(updates.back().sequence, updates.front().sequence + 1);
}

// The same when the application closes the file at the error and opens it again, and while other
// chunks are written.
TEST_F(ClientTest, TheChannelOfALostUpdateSurvivesTheClose) {
  auto options = cluster.options();
  options.data_deadline_ns = 100'000'000;
  User hasty(options);
  cluster.on_storage([](uint16_t method, size_t) {
    return method == ps::WRITE ? Fault::kDropReply : Fault::kNone;
  });
  auto file = hasty.open(cluster);
  ASSERT_TRUE(hasty.write(file, 0, "one").ok());
  EXPECT_EQ(hasty.close(file).code(), uint32_t{kTimedOut});
  file.reset();
  cluster.on_storage(nullptr);
  Seen lost = cluster.updates().front();
  file = hasty.open(cluster);
  ASSERT_TRUE(hasty.write(file, kChunk, "other").ok());
  ASSERT_TRUE(hasty.flush(file).ok());
  EXPECT_NE(cluster.updates().back().channel, lost.channel);
  ASSERT_TRUE(hasty.write(file, 0, "two").ok());
  ASSERT_TRUE(hasty.flush(file).ok());
  EXPECT_EQ(cluster.updates().back().channel, lost.channel);
  EXPECT_GT(cluster.updates().back().sequence, lost.sequence);
}

TEST_F(ClientTest, OneUpdatePerChunkAtATime) {
  // Every write to chunk 0 is answered late; a second one must not arrive before.
  cluster.on_storage([](uint16_t, size_t) { return Fault::kDelay; });
  auto file = user.open(cluster, O_RDWR | O_DIRECT);
  std::vector<std::future<Result<size_t>>> writes;
  for (int i = 0; i < 20; ++i) {
    writes.push_back(std::async(std::launch::async, [&, i] {
      return user.write(file, 0, std::string(100, static_cast<char>('a' + i)));
    }));
  }
  for (auto& write : writes) EXPECT_TRUE(write.get().ok());
  auto chunk = cluster.chunk(0);
  EXPECT_TRUE(chunk == std::string(100, chunk[0]));
  EXPECT_TRUE(*user.read(file, 0, 100) == chunk);
}

TEST_F(ClientTest, SettlesOnceAndOnlyWhatWasWritten) {
  auto file = user.open(cluster);
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  EXPECT_FALSE(user.client->local_size(42, cluster.version(), &size, &mtime_ns));
  ASSERT_TRUE(user.write(file, 10, "abc").ok());
  EXPECT_TRUE(user.client->local_size(42, cluster.version(), &size, &mtime_ns));
  EXPECT_EQ(size, 13u);
  EXPECT_GT(mtime_ns, 0);
  ASSERT_TRUE(user.fsync(file).ok());
  EXPECT_EQ(cluster.settled_size(), 13u);
  EXPECT_FALSE(user.client->local_size(42, cluster.version(), &size, &mtime_ns));
  EXPECT_TRUE(user.close(file).ok());
  EXPECT_EQ(user.close(file).code(), uint32_t{EBADF});
  EXPECT_EQ(user.write(file, 0, "x").status().code(), uint32_t{EBADF});
}

TEST_F(ClientTest, TruncateForgetsBytesBeyond) {
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, pattern(3 * kChunk, 1)).ok());
  ASSERT_TRUE(user.fsync(file).ok());
  ASSERT_TRUE(user.write(file, kChunk + 10, "unsent").ok());
  user.client->note_truncated(42, kChunk + 12, cluster.version());
  auto bytes = *user.read(file, kChunk, 100);
  EXPECT_EQ(bytes.size(), 12u);
  EXPECT_TRUE(bytes.substr(10) == "un");
  ASSERT_TRUE(user.write(file, kChunk + 20, "z").ok());
  EXPECT_EQ(user.read(file, kChunk, 100)->size(), 21u);
}

TEST_F(ClientTest, AppendsGoToTheEnd) {
  auto file = user.open(cluster, O_WRONLY | O_APPEND);
  ASSERT_TRUE(user.write(file, 0, "one").ok());
  ASSERT_TRUE(user.write(file, 0, "two").ok());
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_TRUE(cluster.chunk(0) == "onetwo");
}

// The kernel writes pages of a mapping through any writable handle of the inode.
TEST_F(ClientTest, PagesOfAMappingKeepTheirPlaceWhateverTheHandle) {
  auto file = user.open(cluster, O_RDWR | O_APPEND);
  ASSERT_TRUE(user.write(file, 0, "0123456789").ok());
  ASSERT_TRUE(user.write(file, 3, "abc", WriteAt::kOffset).ok());
  ASSERT_TRUE(user.write(file, 0, "!").ok());
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_TRUE(cluster.chunk(0) == "012abc6789!");
  EXPECT_EQ(cluster.settled_size(), 11u);
}

TEST_F(ClientTest, FsyncOfAReaderMakesDurableWhatOthersSettled) {
  auto writer = user.open(cluster);
  ASSERT_TRUE(user.write(writer, 0, "abc").ok());
  ASSERT_TRUE(user.close(writer).ok());
  auto reader = user.open(cluster, O_RDONLY);
  size_t durable = cluster.durable_syncs();
  ASSERT_TRUE(user.fsync(reader).ok());
  EXPECT_EQ(cluster.durable_syncs(), durable + 1);
}

// A truncate by somebody else must not swallow the error that a writer is owed.
TEST_F(ClientTest, SettlingLeavesErrorsToTheirHandles) {
  auto one = user.open(cluster);
  auto two = user.open(cluster);
  cluster.on_storage(
      [](uint16_t method, size_t) { return method == ps::WRITE ? Fault::kNoSpace : Fault::kNone; });
  ASSERT_TRUE(user.write(one, 0, "abc").ok());
  EXPECT_TRUE(user.settle().ok());  // refused for good: nothing can arrive later
  EXPECT_EQ(user.fsync(one).code(), uint32_t{ENOSPC});
  EXPECT_TRUE(user.fsync(one).ok());
  EXPECT_EQ(user.close(two).code(), uint32_t{ENOSPC});
}

TEST_F(ClientTest, SettlingReportsBytesThatMayStillArrive) {
  auto options = cluster.options();
  options.data_deadline_ns = 100'000'000;
  User hasty(options);
  cluster.on_storage([](uint16_t, size_t) { return Fault::kNever; });
  auto file = hasty.open(cluster);
  ASSERT_TRUE(hasty.write(file, 0, "abc").ok());
  EXPECT_EQ(hasty.settle().code(), uint32_t{kTimedOut});
  EXPECT_EQ(hasty.fsync(file).code(), uint32_t{kTimedOut});
}

// A CLOSE that tells a length and arrives after a truncate would bring the old length back.
TEST_F(ClientTest, SettlingWaitsForSettlementsOnTheirWay) {
  std::atomic<bool> hold{true};
  cluster.on_meta(
      [&](uint16_t method) { return method == pm::CLOSE && hold ? Fault::kBusy : Fault::kNone; });
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "abc").ok());
  auto closed = std::async(std::launch::async, [&] { return user.close(file); });
  while (cluster.meta_calls(pm::CLOSE) == 0) std::this_thread::yield();
  std::atomic<bool> settled{false};
  auto settling = std::async(std::launch::async, [&] {
    Status status = user.settle();
    settled = true;
    return status;
  });
  size_t refused = cluster.meta_calls(pm::CLOSE);
  while (cluster.meta_calls(pm::CLOSE) < refused + 3) {
    EXPECT_FALSE(settled);
    std::this_thread::yield();
  }
  hold = false;
  EXPECT_TRUE(settling.get().ok());
  EXPECT_TRUE(closed.get().ok());
  EXPECT_EQ(cluster.settled_size(), 3u);
}

// A reader asks for the length, and the answer overtakes nothing: the truncate is the newer one.
TEST_F(ClientTest, AnOlderLengthDoesNotUndoATruncate) {
  auto file = user.open(cluster, O_RDWR | O_APPEND);
  ASSERT_TRUE(user.write(file, 0, "0123456789").ok());
  ASSERT_TRUE(user.fsync(file).ok());
  uint64_t before = cluster.version();
  cluster.truncate(2);
  user.client->note_truncated(42, 2, cluster.version());
  cluster.answer_attributes(10, before);
  while (cluster.meta_calls(pm::GETATTR) == 0) {
    ASSERT_TRUE(user.read(file, 0, 100)->size() == 2);
  }
  ASSERT_TRUE(user.write(file, 0, "x").ok());
  EXPECT_TRUE(*user.read(file, 0, 100) == "01x");
}

// A machine that slept: the service has ended the session, the open file has to go on.
TEST_F(ClientTest, ASessionThatWasEndedIsOpenedAgain) {
  auto file = user.open(cluster);
  cluster.end_session(std::string(16, 's'));
  std::atomic<int> denied{1};
  cluster.on_storage([&](uint16_t method, size_t) {
    return method == ps::WRITE && denied.fetch_sub(1) > 0 ? Fault::kDenied : Fault::kNone;
  });
  ASSERT_TRUE(user.write(file, 0, "abc").ok());
  Status status = user.fsync(file);
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_TRUE(cluster.chunk(0) == "abc");
  EXPECT_EQ(cluster.meta_calls(pm::OPEN), 1u);
  // The new session renews the next one.
  denied = 1;
  ASSERT_TRUE(user.write(file, 0, "def").ok());
  EXPECT_TRUE(user.close(file).ok());
  EXPECT_EQ(cluster.meta_calls(pm::OPEN), 1u);
}

// Attributes that were asked for before a settlement and arrive after it.
TEST_F(ClientTest, KnowsBetterThanAttributesOfAnOlderVersion) {
  auto file = user.open(cluster);
  uint64_t before = cluster.version();
  ASSERT_TRUE(user.write(file, 0, "abc").ok());
  ASSERT_TRUE(user.fsync(file).ok());
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  EXPECT_TRUE(user.client->local_size(42, before, &size, &mtime_ns));
  EXPECT_EQ(size, 3u);
  EXPECT_FALSE(user.client->local_size(42, cluster.version(), &size, &mtime_ns));
  auto told = user.client->last_told(file);
  EXPECT_EQ(told.version, cluster.version());
  EXPECT_EQ(told.size, 3u);
}

TEST_F(ClientTest, ModesAreEnforced) {
  auto reader = user.open(cluster, O_RDONLY);
  EXPECT_EQ(user.write(reader, 0, "x").status().code(), uint32_t{EBADF});
  auto writer = user.open(cluster, O_WRONLY);
  EXPECT_EQ(user.read(writer, 0, 1).status().code(), uint32_t{EBADF});
  EXPECT_EQ(user.write(writer, 1ull << 62, "x").status().code(), uint32_t{EFBIG});
}

TEST_F(ClientTest, MetadataCallsKeepTheirRequestId) {
  std::atomic<int> left{3};
  cluster.on_meta([&](uint16_t method) {
    if (method != pm::LOOKUP) return Fault::kNone;
    int n = left.fetch_sub(1);
    return n == 3 ? Fault::kBusy : n > 0 ? Fault::kDropReply : Fault::kNone;
  });
  EXPECT_EQ(user.lookup().status().code(), uint32_t{ENOENT});
  auto ids = cluster.request_ids();
  EXPECT_EQ(std::set<uint64_t>(ids.begin(), ids.end()).size(), 1u);
  EXPECT_EQ(user.client->statistics().meta_retries, 3u);
  EXPECT_EQ(user.lookup().status().code(), uint32_t{ENOENT});
  EXPECT_NE(cluster.request_ids().back(), ids[0]);
}

TEST_F(ClientTest, MetadataFailsOverToAnotherAddress) {
  auto options = cluster.options();
  options.meta_addresses.insert(options.meta_addresses.begin(), "tcp://127.0.0.1:1");
  User other(options);
  EXPECT_EQ(other.lookup().status().code(), uint32_t{ENOENT});
}

TEST_F(ClientTest, MetadataDeadlineSaysThatTheOutcomeIsUnknown) {
  auto options = cluster.options();
  options.meta_deadline_ns = 50'000'000;
  User hasty(options);
  cluster.on_meta([](uint16_t) { return Fault::kNever; });
  EXPECT_EQ(hasty.lookup().status().code(), uint32_t{kTimedOut});
}

TEST_F(ClientTest, ServersTruncateRemoveAndMeasure) {
  auto options = cluster.options();
  options.cluster_id = kClusterId;
  options.capability_key = std::string("\x01\x00", 2) + std::string(32, 'k');
  User server(options);
  for (uint64_t index : {0, 1, 2, 3, 4, 5, 900, 901})
    cluster.put_chunk(index, pattern(kChunk, index));
  std::string layout = FakeCluster::layout().SerializeAsString();
  auto length = [&] {
    auto held = wait_for<Result<Client::Measure>>(
        [&](auto done) { server.client->measure(42, layout, std::move(done)); });
    EXPECT_TRUE(held.ok()) << held.status().to_string();
    return held.ok() ? held->length : 0;
  };
  std::atomic<int> count{0};
  cluster.on_storage([&](uint16_t, size_t) {
    return count.fetch_add(1) % 3 == 0 ? Fault::kDropReply : Fault::kNone;
  });
  EXPECT_EQ(length(), 902ull * kChunk);
  auto status = wait_for<Status>([&](auto done) {
    server.client->truncate_chunks(42, layout, 902ull * kChunk, 3 * kChunk + 7, std::move(done));
  });
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(length(), 3ull * kChunk + 7);
  EXPECT_EQ(cluster.chunk_count(), 4u);
  status = wait_for<Status>(
      [&](auto done) { server.client->remove_chunks(42, layout, 0, std::move(done)); });
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(cluster.chunk_count(), 0u);
  auto refused = wait_for<Status>(
      [&](auto done) { user.client->remove_chunks(42, layout, 0, std::move(done)); });
  EXPECT_EQ(refused.code(), uint32_t{EACCES});
}

// A lost TRUNCATE or REMOVE that arrives after it was repeated would cut what was written since.
TEST_F(ClientTest, ServersRepeatALostCutOnItsChannel) {
  auto options = cluster.options();
  options.cluster_id = kClusterId;
  options.capability_key = std::string("\x01\x00", 2) + std::string(32, 'k');
  options.data_deadline_ns = 100'000'000;
  User server(options);
  cluster.put_chunk(0, pattern(kChunk, 1));
  std::string layout = FakeCluster::layout().SerializeAsString();
  auto cut = [&] {
    return wait_for<Status>(
        [&](auto done) { server.client->truncate_chunks(42, layout, kChunk, 7, std::move(done)); });
  };
  cluster.on_storage([](uint16_t method, size_t) {
    return method == ps::TRUNCATE ? Fault::kDropReply : Fault::kNone;
  });
  EXPECT_EQ(cut().code(), uint32_t{kTimedOut});
  Seen lost = cluster.updates().back();
  cluster.on_storage(nullptr);
  EXPECT_TRUE(cut().ok());
  EXPECT_EQ(cluster.updates().back().channel, lost.channel);
  EXPECT_GT(cluster.updates().back().sequence, lost.sequence);
}

TEST_F(ClientTest, OpenInodesAreKeptAlive) {
  auto file = user.open(cluster, O_RDONLY);
  while (cluster.kept_alive() != std::vector<uint64_t>{42}) std::this_thread::yield();
}

TEST_F(ClientTest, ShutdownEndsOpenCalls) {
  cluster.on_storage([](uint16_t, size_t) { return Fault::kNever; });
  cluster.on_meta(
      [](uint16_t method) { return method == pm::LOOKUP ? Fault::kNever : Fault::kNone; });
  auto file = user.open(cluster);
  ASSERT_TRUE(user.write(file, 0, "x").ok());
  auto flushed = std::async(std::launch::async, [&] { return user.flush(file); });
  auto found = std::async(std::launch::async, [&] { return user.lookup(); });
  while (cluster.meta_calls(pm::LOOKUP) == 0) std::this_thread::yield();
  user.client->shutdown();
  EXPECT_EQ(flushed.get().code(), uint32_t{ESHUTDOWN});
  EXPECT_EQ(found.get().status().code(), uint32_t{ESHUTDOWN});
  EXPECT_EQ(user.write(file, 0, "x").status().code(), uint32_t{ESHUTDOWN});
}

TEST_F(ClientTest, AForkedChildIsToldToMakeItsOwn) {
  auto file = user.open(cluster);
  pid_t child = ::fork();
  if (child == 0) {
    uint32_t code = 0;
    user.client->flush(file, [&](Status status) { code = status.code(); });
    user.client->shutdown();
    ::_exit(code == ESHUTDOWN ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(user.flush(file).ok());
}

// Reactors given by the owner (the mount): callbacks come on the reactor of the call.
TEST(ClientReactors, CallbacksStayOnTheReactorOfTheCall) {
  FakeCluster cluster;
  auto one = std::move(ReactorThread::create("one")).value();
  auto two = std::move(ReactorThread::create("two")).value();
  auto client =
      std::move(Client::create(cluster.options(), {&one->reactor(), &two->reactor()})).value();
  for (Reactor* reactor : {&one->reactor(), &two->reactor()}) {
    bool there = wait_for<bool>([&](auto done) {
      reactor->post([&, done = std::move(done)]() mutable {
        client->meta_call(pm::LOOKUP, "", 0, "",
                          [&, done = std::move(done)](Result<std::string>) mutable {
                            done(reactor->on_thread());
                          });
      });
    });
    EXPECT_TRUE(there);
  }
  client->shutdown();
}

// ---- against a byte array -----------------------------------------------------------------------

struct ModelRun {
  uint64_t seed;
  size_t write_back_bytes;
};

class ModelTest : public testing::TestWithParam<ModelRun> {};

// Random reads, writes, flushes, syncs and truncates by one user, while replies get lost, delayed
// and refused and the chain changes. Every read must equal the model; at the end storage must.
TEST_P(ModelTest, ReadsSeeEveryWrite) {
  auto [seed, write_back_bytes] = GetParam();
  FakeCluster cluster;
  auto options = cluster.options();
  options.write_back_bytes = write_back_bytes;
  User user(options);
  std::mt19937_64 random(seed);
  std::atomic<size_t> faults{0};
  cluster.on_storage([&, fault_random = std::mt19937_64(seed + 1)](uint16_t, size_t) mutable {
    switch (fault_random() % 12) {
      case 0:
        ++faults;
        return Fault::kDropReply;
      case 1:
        ++faults;
        return Fault::kBusy;
      case 2:
      case 3:
        ++faults;
        return Fault::kDelay;
      default:
        return Fault::kNone;
    }
  });
  auto file = user.open(cluster);
  std::string model;
  constexpr uint64_t kSpan = 6 * kChunk;
  for (int step = 0; step < 400; ++step) {
    uint64_t offset = random() % kSpan;
    size_t length = 1 + random() % (random() % 4 == 0 ? 3 * kChunk : 5000);
    uint64_t action = random() % 100;
    if (action < 50) {
      std::string bytes = pattern(length, random());
      ASSERT_EQ(*user.write(file, offset, bytes), length);
      if (model.size() < offset + length) model.resize(offset + length);
      model.replace(offset, length, bytes);
    } else if (action < 88) {
      auto got = user.read(file, offset, length);
      ASSERT_TRUE(got.ok()) << got.status().to_string();
      std::string expected = offset < model.size() ? model.substr(offset, length) : "";
      ASSERT_TRUE(*got == expected) << "seed " << seed << " step " << step << " at " << offset;
    } else if (action < 92) {
      ASSERT_TRUE(user.flush(file).ok());
    } else if (action < 95) {
      ASSERT_TRUE(user.fsync(file).ok());
    } else if (action < 98) {
      ASSERT_TRUE(user.fsync(file).ok());
      cluster.truncate(offset);
      user.client->note_truncated(42, offset, cluster.version());
      model.resize(offset);
    } else {
      std::vector<size_t> nodes{0, 1, 2};
      std::shuffle(nodes.begin(), nodes.end(), random);
      cluster.set_serving(nodes);
    }
  }
  EXPECT_GT(faults, 20u);
  ASSERT_TRUE(user.close(file).ok());
  EXPECT_EQ(cluster.settled_size(), model.size());
  auto again = user.open(cluster, O_RDONLY);
  EXPECT_TRUE(*user.read(again, 0, 2 * kSpan) == model);
}

INSTANTIATE_TEST_SUITE_P(Seeds, ModelTest,
                         testing::Values(ModelRun{1, 4u << 20}, ModelRun{2, 2 * kChunk},
                                         ModelRun{3, 0}, ModelRun{4, 1u << 20}, ModelRun{5, 1},
                                         ModelRun{6, 3 * kChunk}));

// Threads that write disjoint, unaligned stripes of the same chunks through handles of their own.
TEST(ClientThreads, DisjointWritersDoNotDisturbOneAnother) {
  FakeCluster cluster;
  User user(cluster.options());
  cluster.on_storage([random = std::mt19937_64(9)](uint16_t, size_t) mutable {
    return random() % 8 == 0 ? Fault::kDropReply : random() % 4 == 0 ? Fault::kDelay : Fault::kNone;
  });
  constexpr size_t kThreads = 4, kStripe = 1777, kRounds = 200;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      auto file = user.open(cluster, t % 2 == 0 ? O_RDWR : O_RDWR | O_DIRECT);
      std::mt19937_64 random(t);
      for (size_t round = 0; round < kRounds; ++round) {
        uint64_t offset = (random() % 300 * kThreads + t) * kStripe;
        std::string bytes(kStripe, static_cast<char>('A' + random() % 26));
        ASSERT_TRUE(user.write(file, offset, bytes).ok());
        ASSERT_TRUE(*user.read(file, offset, kStripe) == bytes);
        if (random() % 20 == 0) {
          ASSERT_TRUE(user.fsync(file).ok());
        }
      }
      ASSERT_TRUE(user.close(file).ok());
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(user.client->statistics().dirty_bytes, 0u);
}

}  // namespace
}  // namespace fs3::client
