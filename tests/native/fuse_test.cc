// The pieces of the FUSE session that need no kernel: decoding, negotiation, packing, tables.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "fuse/attributes.h"
#include "fuse/callers.h"
#include "fuse/decode.h"
#include "fuse/directory.h"
#include "fuse/dirent.h"
#include "fuse/files.h"
#include "fuse/kernel.h"
#include "fuse/negotiate.h"
#include "fuse/nodes.h"
#include "fuse/statistics.h"

namespace fs3::fuse {
namespace {

// A message as /dev/fuse delivers it: header, operation header, payload.
std::string message(uint32_t opcode, std::string_view fixed, std::string_view payload) {
  fuse_in_header header{};
  header.len = static_cast<uint32_t>(sizeof header + fixed.size() + payload.size());
  header.opcode = opcode;
  header.unique = 7;
  header.nodeid = 1;
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof header);
  return bytes.append(fixed).append(payload);
}

template <typename T>
std::string_view view(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

Bytes bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

TEST(Decode, SplitsARequest) {
  fuse_mkdir_in in{.mode = 0755, .umask = 022};
  std::string text = message(FUSE_MKDIR, view(in), std::string_view("dir\0", 4));
  auto decoded = decode_request(bytes_of(text));
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(decoded->known);
  EXPECT_EQ(decoded->header.unique, 7u);
  EXPECT_EQ(decoded->operation.size(), sizeof in);
  EXPECT_EQ(decoded->payload.size(), 4u);
}

TEST(Decode, RefusesEveryTruncation) {
  fuse_write_in in{};
  std::string text = message(FUSE_WRITE, view(in), "data");
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_FALSE(decode_request(bytes_of(text).first(size)).ok()) << size;
  }
  EXPECT_TRUE(decode_request(bytes_of(text)).ok());
}

TEST(Decode, RefusesTrailingBytesAndShortHeaders) {
  std::string text = message(FUSE_STATFS, "", "");
  EXPECT_FALSE(decode_request(bytes_of(text + "x")).ok());
  std::string shortened = message(FUSE_READ, "too short", "");
  auto decoded = decode_request(bytes_of(shortened));
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.status().detail().substr(0, 16), "operation header");
}

TEST(Decode, UnknownOperationIsDecodedButNotKnown) {
  auto decoded = decode_request(bytes_of(message(4000, "anything", "")));
  ASSERT_TRUE(decoded.ok());
  EXPECT_FALSE(decoded->known);
}

TEST(Decode, ExtensionsAreCutOffAndBounded) {
  std::string text = message(FUSE_LOOKUP, "",
                             std::string("name\0"
                                         "extended",
                                         13));
  auto* header = reinterpret_cast<fuse_in_header*>(text.data());
  header->total_extlen = 1;
  auto decoded = decode_request(bytes_of(text));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->payload.size(), 5u);
  header->total_extlen = 2;
  EXPECT_FALSE(decode_request(bytes_of(text)).ok());
}

TEST(Names, TakesOneAfterTheOther) {
  std::string text("old\0new\0", 8);
  Bytes payload = bytes_of(text);
  std::string_view first, second, third;
  ASSERT_EQ(take_name(payload, &first), 0);
  ASSERT_EQ(take_name(payload, &second), 0);
  EXPECT_EQ(first, "old");
  EXPECT_EQ(second, "new");
  EXPECT_EQ(take_name(payload, &third), EINVAL);
}

TEST(Names, RefusesWhatIsNoName) {
  auto taken = [](std::string_view text) {
    Bytes payload = bytes_of(text);
    std::string_view name;
    int error = take_name(payload, &name);
    EXPECT_TRUE(error == 0 || payload.size() == text.size()) << "unchanged on failure";
    return error;
  };
  EXPECT_EQ(taken(""), EINVAL);
  EXPECT_EQ(taken(std::string_view("\0", 1)), EINVAL);
  EXPECT_EQ(taken("unterminated"), EINVAL);
  EXPECT_EQ(taken(std::string_view("a/b\0", 4)), EINVAL);
  EXPECT_EQ(taken(std::string(255, 'x') + std::string(1, '\0')), 0);
  EXPECT_EQ(taken(std::string(256, 'x') + std::string(1, '\0')), ENAMETOOLONG);
}

TEST(Names, LinkTargetsMayHaveSlashes) {
  std::string text("../a/b\0", 7);
  Bytes payload = bytes_of(text);
  std::string_view target;
  ASSERT_EQ(take_string(payload, &target, kSymlinkMax), 0);
  EXPECT_EQ(target, "../a/b");
}

fuse_init_in kernel_offer(uint32_t minor) {
  fuse_init_in in{};
  in.major = 7;
  in.minor = minor;
  in.max_readahead = 1u << 30;
  in.flags = 0xffffffff;
  in.flags2 = 0xffffffff;
  return in;
}

TEST(Negotiate, TakesWhatIsWantedAndNothingElse) {
  fuse_init_in in = kernel_offer(45);
  auto answer = negotiate_init(bytes_of(view(in)), {.offer_uring = true});
  ASSERT_TRUE(answer.ok());
  EXPECT_TRUE(answer->uring);
  EXPECT_EQ(answer->out.minor, kMinorOffered);
  EXPECT_EQ(answer->out.max_write, 1u << 20);
  EXPECT_EQ(answer->out.max_pages, 256);
  EXPECT_EQ(answer->out.flags & FUSE_WRITEBACK_CACHE, 0u);
  EXPECT_EQ(answer->out.flags & FUSE_POSIX_LOCKS, 0u);
  EXPECT_EQ(answer->out.flags & (FUSE_SPLICE_READ | FUSE_SPLICE_WRITE | FUSE_SPLICE_MOVE), 0u);
  EXPECT_NE(answer->out.flags & FUSE_HANDLE_KILLPRIV_V2, 0u);
  EXPECT_NE(answer->out.flags2 & static_cast<uint32_t>(kInitDirectIoAllowMmap >> 32), 0u);
}

TEST(Negotiate, UringOnlyWhenBothSidesWant) {
  fuse_init_in in = kernel_offer(45);
  EXPECT_FALSE(negotiate_init(bytes_of(view(in)), {.offer_uring = false})->uring);
  in.flags2 = 0;
  EXPECT_FALSE(negotiate_init(bytes_of(view(in)), {.offer_uring = true})->uring);
}

TEST(Negotiate, IgnoresSecondFlagsWithoutExtension) {
  fuse_init_in in = kernel_offer(36);
  in.flags &= ~static_cast<uint32_t>(FUSE_INIT_EXT);
  auto answer = negotiate_init(bytes_of(view(in)), {.offer_uring = true});
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->out.flags2, 0u);
  EXPECT_EQ(answer->out.minor, 36u);
}

TEST(Negotiate, AclsAreCheckedByTheKernelToo) {
  fuse_init_in in = kernel_offer(42);
  auto answer = negotiate_init(bytes_of(view(in)), {});
  ASSERT_TRUE(answer.ok());
  EXPECT_NE(answer->out.flags & FUSE_POSIX_ACL, 0u);
  EXPECT_NE(answer->out.flags & FUSE_SETXATTR_EXT, 0u);
}

TEST(Negotiate, RefusesOldKernelsAndShortRequests) {
  fuse_init_in in = kernel_offer(32);
  EXPECT_EQ(negotiate_init(bytes_of(view(in)), {}).status().code(), uint32_t{EPROTO});
  EXPECT_FALSE(negotiate_init(bytes_of(view(in)).first(12), {}).ok());
}

TEST(DirentPacker, PacksAlignedEntriesUntilFull) {
  alignas(8) std::byte space[64];
  DirentPacker packer(space, sizeof space);
  EXPECT_TRUE(packer.add("a", 5, 8, 16));
  EXPECT_EQ(packer.used(), 32u);
  EXPECT_TRUE(packer.add("12345678", 6, 4, 17));
  EXPECT_EQ(packer.used(), 64u);
  EXPECT_FALSE(packer.add("x", 7, 8, 18));
  EXPECT_EQ(packer.used(), 64u) << "a refused entry leaves nothing behind";
  auto* second = reinterpret_cast<fuse_dirent*>(space + 32);
  EXPECT_EQ(second->ino, 6u);
  EXPECT_EQ(second->off, 17u);
  EXPECT_EQ(std::string_view(second->name, second->namelen), "12345678");
}

TEST(DirentPacker, PlusCarriesTheEntry) {
  alignas(8) std::byte space[256];
  DirentPacker packer(space, sizeof space);
  fuse_entry_out entry{};
  entry.nodeid = 9;
  ASSERT_TRUE(packer.add_plus("name", 9, 8, 20, entry));
  auto* packed = reinterpret_cast<fuse_direntplus*>(space);
  EXPECT_EQ(packed->entry_out.nodeid, 9u);
  EXPECT_EQ(std::string_view(packed->dirent.name, packed->dirent.namelen), "name");
  EXPECT_EQ(packer.used() % 8, 0u);
  EXPECT_FALSE(packer.add_plus(std::string(255, 'n'), 9, 8, 21, entry));
}

TEST(Statistics, BucketsArePowersOfTwoMicroseconds) {
  EXPECT_EQ(latency_bucket(-5), 0u);
  EXPECT_EQ(latency_bucket(1'999), 0u);
  EXPECT_EQ(latency_bucket(2'000), 1u);
  EXPECT_EQ(latency_bucket(4'000), 2u);
  EXPECT_EQ(latency_bucket(INT64_MAX), kLatencyBuckets - 1);
}

TEST(Statistics, CountsByOperation) {
  OperationStatistics statistics;
  statistics.record(FUSE_READ, 3'000, false);
  statistics.record(FUSE_READ, 9'000, true);
  statistics.record(1 << 20, 1'000, true);
  auto samples = statistics.sample();
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples[0].name, "other");
  EXPECT_EQ(samples[1].name, "read");
  EXPECT_EQ(samples[1].count, 2u);
  EXPECT_EQ(samples[1].errors, 1u);
  EXPECT_EQ(samples[1].total_ns, 12'000u);
  EXPECT_EQ(samples[1].buckets[1], 1u);
  EXPECT_EQ(samples[1].buckets[3], 1u);
}

TEST(Times, FloorBeforeTheEpoch) {
  EXPECT_EQ(static_cast<int64_t>(split_time(-1).seconds), -1);
  EXPECT_EQ(split_time(-1).nanoseconds, 999'999'999u);
  EXPECT_EQ(join_time(split_time(-1).seconds, split_time(-1).nanoseconds), -1);
  EXPECT_EQ(join_time(split_time(1'500'000'000).seconds, split_time(1'500'000'000).nanoseconds),
            1'500'000'000);
}

TEST(Times, BeyondTheCountTakesTheNearest) {
  EXPECT_EQ(join_time(uint64_t{1} << 60, 5), INT64_MAX);
  EXPECT_EQ(join_time(static_cast<uint64_t>(INT64_MIN), UINT32_MAX), INT64_MIN);
  EXPECT_EQ(join_time(4'000'000'000, 7), 4'000'000'000'000'000'007);
}

TEST(Callers, ReadsGroups) {
  EXPECT_EQ(parse_groups("Name:\tx\nGroups:\t4 24 1000 \nNStgid:\t1\n"),
            (std::vector<uint32_t>{4, 24, 1000}));
  EXPECT_TRUE(parse_groups("Name:\tGroups:\t4\n").empty());
  EXPECT_TRUE(parse_groups("Uid:\t0\nGroups:\t\nNStgid:\t1\n").empty());
  std::string many = "Uid:\t0\nGroups:\t";
  for (int i = 0; i < 100; ++i) many += std::to_string(i) + " ";
  EXPECT_EQ(parse_groups(many).size(), kGroupsMax);
}

TEST(NodeTable, KeepsPagesWhileContentIsTheSame) {
  NodeTable nodes;
  ContentVersion version{.data_version = 3, .size = 10, .mtime_ns = 5};
  EXPECT_FALSE(nodes.content_unchanged(8, version)) << "never looked up";
  nodes.told(8, 1, 0644, 0, 0, 1);
  EXPECT_FALSE(nodes.content_unchanged(8, version)) << "first open";
  EXPECT_TRUE(nodes.content_unchanged(8, version));
  version.data_version = 4;
  EXPECT_FALSE(nodes.content_unchanged(8, version));
  nodes.forget(8, 1);
  EXPECT_EQ(nodes.size(), 0u);
  EXPECT_FALSE(nodes.content_unchanged(8, version)) << "forgotten";
}

TEST(NodeTable, NoticesWhatTheKernelBelieves) {
  NodeTable nodes;
  nodes.told(8, 5, 0644, 0, 1000, 1);
  EXPECT_FALSE(nodes.told_otherwise(8, 5, 500));
  EXPECT_TRUE(nodes.told_otherwise(8, 6, 500));
  EXPECT_FALSE(nodes.told_otherwise(8, 6, 1000)) << "expired: the kernel asks by itself";
  nodes.told(8, 4, 0600, 0, 9000, 0);
  EXPECT_EQ(nodes.mode(8), 0644u) << "an older reply does not go back";
}

TEST(NodeTable, KnowsFlagsAsLongAsTheKernelBelieves) {
  NodeTable nodes;
  EXPECT_FALSE(nodes.flags(8, 0).has_value()) << "never looked up";
  nodes.told(8, 5, 0644, 0, 1000, 1);
  EXPECT_EQ(nodes.flags(8, 999), 0u);
  EXPECT_FALSE(nodes.flags(8, 1000).has_value()) << "expired";
  {
    ChangeMark change(nodes, 8);
    EXPECT_FALSE(nodes.flags(8, 999).has_value()) << "somebody here may be adding one";
  }
  nodes.told(8, 6, 0644, 4, 1000, 0);
  nodes.told(8, 5, 0644, 0, 1000, 0);
  EXPECT_EQ(nodes.flags(8, 999), 4u) << "an older reply does not go back";
}

TEST(NodeTable, NotesReadsThatAreDue) {
  constexpr int64_t kDay = 86'400'000'000'000;
  NodeTable nodes;
  int64_t now = 100;
  EXPECT_FALSE(nodes.read_now(8, &now, true).has_value()) << "never looked up";
  nodes.told(8, 5, 0644, 0, 1000, 1);
  nodes.times(8, 5, 50, 60);
  nodes.times(8, 4, 99, 0);  // an older reply does not go back
  EXPECT_TRUE(nodes.read_due(8, now));
  EXPECT_EQ(nodes.read_now(8, &now, false), 50) << "changed since it was read";
  EXPECT_EQ(nodes.read_noted(8), 100);
  now = 101;
  EXPECT_FALSE(nodes.read_due(8, now));
  EXPECT_FALSE(nodes.read_now(8, &now, false).has_value()) << "read since it was changed";
  EXPECT_EQ(nodes.read_now(8, &now, true), 50) << "strictatime";
  nodes.read_told(8, 100);
  EXPECT_EQ(nodes.read_noted(8), 101) << "a later one waits";
  nodes.read_told(8, 101);
  EXPECT_EQ(nodes.read_noted(8), 0);
  now = 101 + kDay;
  EXPECT_EQ(nodes.read_now(8, &now, false), 101) << "a day old";
  nodes.times(8, 6, 50, 1000 * kDay);
  EXPECT_TRUE(nodes.read_now(8, &now, false).has_value());
  EXPECT_EQ(now, 1000 * kDay + 1) << "later than the change, whatever this host's clock says";
  nodes.told(8, 7, 0644, 0x80, 1000, 0);
  nodes.times(8, 7, 50, 2000 * kDay);
  EXPECT_FALSE(nodes.read_now(8, &now, true).has_value()) << "chattr +A";
}

TEST(NodeTable, RemembersChanges) {
  NodeTable nodes;
  nodes.told(8, 1, 0644, 0, 0, 1);
  int64_t before = now_ns();
  EXPECT_FALSE(nodes.changed_since(8, before));
  {
    ChangeMark change(nodes, 8);
    EXPECT_TRUE(nodes.changed_since(8, INT64_MAX)) << "in progress";
  }
  EXPECT_TRUE(nodes.changed_since(8, before));
  EXPECT_FALSE(nodes.changed_since(8, now_ns() + 1));
}

TEST(NodeTable, KeepsTheNewestSettlement) {
  NodeTable nodes;
  nodes.set_settled(7, {.version = 3, .size = 100, .mtime_ns = 1});
  EXPECT_EQ(nodes.settled(7).version, 0u);  // a node that the kernel does not know
  nodes.told(7, 1, 0644, 0, 0, 1);
  nodes.set_settled(7, {.version = 3, .size = 100, .mtime_ns = 1});
  nodes.set_settled(7, {.version = 2, .size = 50, .mtime_ns = 2});
  EXPECT_EQ(nodes.settled(7).version, 3u);
  EXPECT_EQ(nodes.settled(7).size, 100u);
  nodes.forget(7, 1);
  EXPECT_EQ(nodes.settled(7).version, 0u);
}

TEST(NodeTable, AForgottenChangeSpoilsOlderListings) {
  NodeTable nodes;
  nodes.told(8, 1, 0644, 0, 0, 1);
  int64_t before = now_ns();
  ChangeMark(nodes, 8).end();
  nodes.forget(8, 1);
  EXPECT_TRUE(nodes.changed_since(8, before));
  EXPECT_TRUE(nodes.changed_since(9, before)) << "whose it was is not known any more";
  EXPECT_FALSE(nodes.changed_since(8, now_ns() + 1));
}

FilePtr file_of(uint64_t inode, uint32_t flags) {
  auto file = std::make_shared<File>();
  file->inode = inode;
  file->flags = flags;
  return file;
}

TEST(FileTable, FindsByHandleAndByInode) {
  FileTable files;
  FilePtr reader = file_of(70, O_RDONLY), writer = file_of(70, O_RDWR);
  uint64_t first = files.add(reader), second = files.add(writer);
  EXPECT_NE(first, 0u);
  EXPECT_NE(first, second);
  EXPECT_EQ(files.find(first), reader);
  EXPECT_EQ(files.any_of(70), writer) << "a writable one when there is any";
  EXPECT_EQ(files.remove(second), writer);
  EXPECT_EQ(files.any_of(70), reader);
  EXPECT_EQ(files.find(second), nullptr);
  EXPECT_EQ(files.remove(second), nullptr);
  EXPECT_EQ(files.not_found(), EBADF);
  EXPECT_EQ(files.remove_all().size(), 1u);
  EXPECT_EQ(files.not_found(), ENOTCONN);  // the handle was right, its mount is gone
  EXPECT_EQ(files.size(), 0u);
  EXPECT_EQ(files.any_of(70), nullptr);
}

TEST(FileTable, ManyThreads) {
  FileTable files;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&files, t] {
      for (uint64_t i = 0; i < 2000; ++i) {
        uint64_t handle = files.add(file_of(t * 10 + i % 10, O_RDWR));
        ASSERT_NE(files.find(handle), nullptr);
        ASSERT_NE(files.remove(handle), nullptr);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(files.size(), 0u);
}

DirectoryPage page_of(uint64_t after, std::vector<uint64_t> cookies, bool end) {
  DirectoryPage page;
  page.after = after;
  for (uint64_t cookie : cookies) page.reply.add_entries()->set_cookie(cookie);
  page.reply.set_end(end);
  return page;
}

TEST(DirectoryPage, ContinuesBehindACookie) {
  DirectoryPage page = page_of(20, {25, 30, 40}, false);
  EXPECT_EQ(page.position(20), 0);
  EXPECT_EQ(page.position(25), 1);
  EXPECT_EQ(page.position(27), 1) << "the entry was removed meanwhile: the next one follows";
  EXPECT_EQ(page.position(40), 3);
  EXPECT_EQ(page.position(19), -1) << "before the page";
  EXPECT_EQ(page.position(41), -1) << "behind the page";
  EXPECT_EQ(page.last_cookie(), 40u);
}

TEST(DirectoryPage, TheLastPageAnswersEverythingBehind) {
  EXPECT_EQ(page_of(20, {25}, true).position(99), 1);
  DirectoryPage empty = page_of(0, {}, true);
  EXPECT_EQ(empty.position(0), 0);
  EXPECT_EQ(empty.position(16), 0);
  EXPECT_EQ(empty.last_cookie(), 0u);
}

}  // namespace
}  // namespace fs3::fuse
