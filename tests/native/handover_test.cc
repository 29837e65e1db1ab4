// What one mount process leaves to the next one.
#include "fuse/handover.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuse/virtual_tree.h"

namespace fs3::fuse {
namespace {

constexpr uint64_t kUnique = 42;

Handover::Connection connection() {
  Handover::Connection made;
  made.init.minor = 40;
  made.kernel_minor = 45;
  made.resends = true;
  made.root_inode = 7;
  made.mountpoint = "/mnt/a b";
  return made;
}

std::shared_ptr<Handover> mounted() {
  auto handover = Handover::create().value();
  handover->set_connection(connection());
  return handover;
}

Handover::CallName name(uint64_t request) { return {std::string(16, 'c'), request}; }

TEST(Handover, WhatWasNegotiatedIsThere) {
  auto first = mounted();
  EXPECT_EQ(first->generation(), 0u);
  EXPECT_TRUE(first->inherited().empty());
  auto second = Handover::adopt(first->fd()).value();
  EXPECT_EQ(second->generation(), 1u);
  Handover::Connection told = second->connection();
  EXPECT_EQ(told.init.minor, 40u);
  EXPECT_EQ(told.kernel_minor, 45u);
  EXPECT_TRUE(told.resends);
  EXPECT_EQ(told.root_inode, 7u);
  EXPECT_EQ(told.mountpoint, "/mnt/a b");
  EXPECT_EQ(Handover::adopt(first->fd()).value()->generation(), 2u);
}

TEST(Handover, OpenFilesAreInheritedAndClosedOnesAreNot) {
  auto first = mounted();
  uint32_t closed = first->note_open(64, 1000, O_RDONLY);
  uint32_t written = first->note_open(65, 1001, O_RDWR);
  uint32_t settled = first->note_open(66, 1002, O_WRONLY | O_APPEND);
  first->note_closed(closed);
  first->note_written(written);
  first->note_written(settled);
  first->note_settled(settled, first->written(settled));
  auto second = Handover::adopt(first->fd()).value();
  ASSERT_EQ(second->inherited().size(), 2u);
  EXPECT_EQ(second->inherited()[0].handle, 65u);
  EXPECT_EQ(second->inherited()[0].inode, 1001u);
  EXPECT_EQ(second->inherited()[0].flags, uint32_t{O_RDWR});
  EXPECT_TRUE(second->inherited()[0].unsettled);
  EXPECT_EQ(second->inherited()[1].flags, uint32_t{O_WRONLY | O_APPEND});
  EXPECT_FALSE(second->inherited()[1].unsettled);
}

TEST(Handover, AWriteDuringASettlementStaysUnsettled) {
  auto first = mounted();
  uint32_t slot = first->note_open(64, 1000, O_RDWR);
  first->note_written(slot);
  uint32_t before = first->written(slot);
  first->note_written(slot);
  first->note_settled(slot, before);
  EXPECT_TRUE(Handover::adopt(first->fd()).value()->inherited()[0].unsettled);
}

TEST(Handover, HalfAnAppendIsKnown) {
  auto first = mounted();
  uint32_t slot = first->note_open(64, 1000, O_WRONLY | O_APPEND);
  first->note_piece(slot, true);
  EXPECT_TRUE(Handover::adopt(first->fd()).value()->inherited()[0].half_append);
  first->note_piece(slot, false);
  EXPECT_FALSE(Handover::adopt(first->fd()).value()->inherited()[0].half_append);
  first->note_piece(slot, true);
  first->note_closed(slot);
  first->note_open(65, 1001, O_WRONLY);
  EXPECT_FALSE(Handover::adopt(first->fd()).value()->inherited()[0].half_append);
}

TEST(Handover, InheritedSlotsAreNotGivenOutUntilTheyAreClosed) {
  auto first = mounted();
  uint32_t free = first->note_open(64, 1000, O_RDONLY);
  uint32_t kept = first->note_open(65, 1001, O_RDONLY);
  first->note_closed(free);
  auto second = Handover::adopt(first->fd()).value();
  EXPECT_EQ(second->inherited()[0].slot, kept);
  EXPECT_EQ(second->note_open(66, 1002, O_RDONLY), free);
  EXPECT_NE(second->note_open(67, 1003, O_RDONLY), kept);
  second->note_closed(kept);
  EXPECT_EQ(second->note_open(68, 1004, O_RDONLY), kept);
  EXPECT_EQ(Handover::adopt(first->fd()).value()->inherited().size(), 3u);
}

TEST(Handover, ACallUnderWayKeepsItsNameThroughSeveralProcesses) {
  auto first = mounted();
  first->end_call(first->begin_call(kUnique + 2, name(5)));
  first->begin_call(kUnique, name(6));
  auto second = Handover::adopt(first->fd()).value();
  EXPECT_EQ(second->earlier_call(kUnique + 2), nullptr);
  ASSERT_NE(second->earlier_call(kUnique | kUniqueResend), nullptr);
  EXPECT_EQ(second->earlier_call(kUnique)->request_id, 6u);
  uint32_t slot = second->begin_call(kUnique | kUniqueResend, *second->earlier_call(kUnique));
  auto third = Handover::adopt(first->fd()).value();
  ASSERT_NE(third->earlier_call(kUnique), nullptr);
  EXPECT_EQ(third->earlier_call(kUnique)->client_id, std::string(16, 'c'));
  second->end_call(slot);
  EXPECT_EQ(Handover::adopt(first->fd()).value()->earlier_call(kUnique), nullptr);
}

// A repeated CREATE is two calls before its answer; until then its name is kept for one more
// process.
TEST(Handover, AnInheritedCallEndsByItsRequest) {
  auto first = mounted();
  first->begin_call(kUnique, name(6));
  auto second = Handover::adopt(first->fd()).value();
  second->begin_call(kUnique | kUniqueResend, *second->earlier_call(kUnique));
  ASSERT_NE(Handover::adopt(first->fd()).value()->earlier_call(kUnique), nullptr);
  second->end_earlier_call(kUnique | kUniqueResend);
  EXPECT_EQ(Handover::adopt(first->fd()).value()->earlier_call(kUnique), nullptr);
}

TEST(Handover, SomethingElseIsRefused) {
  EXPECT_FALSE(Handover::adopt(-1).ok());
  int fd = memfd_create("other", MFD_CLOEXEC);
  EXPECT_FALSE(Handover::adopt(fd).ok());
  close(fd);
  EXPECT_FALSE(Handover::adopt(Handover::create().value()->fd()).ok()) << "it had not mounted";
}

TEST(VirtualTree, PathsBelowTheMount) {
  using virtual_tree::path_below;
  EXPECT_EQ(path_below("/mnt/a", "/mnt/a/b/c"), "b/c");
  EXPECT_EQ(path_below("/mnt/a", "/mnt/a//b"), "b");
  EXPECT_EQ(path_below("/mnt/a", "/mnt/a"), "");
  EXPECT_EQ(path_below("/mnt/a", "/mnt/a/"), "");
  EXPECT_EQ(path_below("/", "/b"), "b");
  EXPECT_FALSE(path_below("/mnt/a", "/mnt/ab/c"));
  EXPECT_FALSE(path_below("/mnt/a", "b"));
  EXPECT_FALSE(path_below("/mnt/a", ""));
}

}  // namespace
}  // namespace fs3::fuse
