// The rules of craq/replica.h, event by event.
#include "craq_world.h"

namespace fs3::craq {
namespace {

struct Head : World {  // head of 11 -> 12
  Head() {
    chain(1, 0, 12);
    lease();
  }
};
struct Middle : World {  // 10 -> 11 -> 12
  Middle() {
    chain(1, 10, 12);
    lease();
  }
};
struct Tail : World {  // 10 -> 11
  Tail() {
    chain(1, 10, 0);
    lease();
  }
};
struct Single : World {
  Single() {
    chain(1, 0, 0);
    lease();
  }
};

// ---- a write through the chain

TEST(CraqUpdate, HeadStagesAndForwardsAtOnce) {
  Head w;
  auto e = w.write(1);
  w.step(e);
  ASSERT_EQ(w.out.size(), 2u);
  auto stage = std::get<Stage>(w.out[0]);
  auto forward = std::get<Forward>(w.out[1]);
  EXPECT_EQ(stage.op, e.op);
  EXPECT_EQ(stage.version, 1u);
  EXPECT_EQ(stage.chain_version, 1u);
  EXPECT_FALSE(stage.commit);
  EXPECT_EQ(forward.version, 1u);
  EXPECT_EQ(forward.update_chain, 1u);
  EXPECT_EQ(forward.source, e.op);
  EXPECT_EQ(forward.to.target, 12u);
  EXPECT_EQ(forward.bytes, Forward::Bytes::kOfOp);
  EXPECT_NE(forward.op & kOwnOp, 0u);
}

TEST(CraqUpdate, HeadCommitsAfterOwnStageAndSuccessorInEitherOrder) {
  for (bool successor_first : {false, true}) {
    Head w;
    auto e = w.write(1);
    w.step(e);
    OpId forward = w.only<Forward>().op;
    if (successor_first)
      w.forward_ok(forward, 77);
    else
      w.staged(e.op, 77);
    EXPECT_TRUE(w.out.empty());
    if (successor_first)
      w.staged(e.op, 77);
    else
      w.forward_ok(forward, 77);
    auto commit = w.only<Commit>();
    EXPECT_EQ(commit.version, 1u);
    EXPECT_FALSE(commit.synced) << "the successor holds it durably";
    w.committed(commit.op);
    auto reply = w.only<Reply>();
    EXPECT_EQ(reply.op, e.op);
    EXPECT_TRUE(reply.status.ok());
    EXPECT_EQ(reply.version, 1u);
    EXPECT_EQ(reply.chunk_length, 4096u);
    EXPECT_EQ(reply.checksum, 77u);
  }
}

TEST(CraqUpdate, TailStagesWithCommitAndAnswersPredecessor) {
  Tail w;
  auto e = w.forwarded(1, 1);
  w.step(e);
  EXPECT_TRUE(w.only<Stage>().commit);
  EXPECT_EQ(w.count<Forward>(), 0u);
  w.staged(e.op, 5);
  EXPECT_EQ(w.count<Commit>(), 0u);
  EXPECT_EQ(w.reply_code(e.op), kOk);
  EXPECT_EQ(w.only<Reply>().checksum, 5u);
}

TEST(CraqUpdate, MiddleAnswersOnlyAfterItsSuccessor) {
  Middle w;
  auto e = w.forwarded(1, 1);
  w.step(e);
  OpId forward = w.only<Forward>().op;
  w.staged(e.op, 5);
  EXPECT_EQ(w.count<Reply>(), 0u);
  w.forward_ok(forward, 5);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.reply_code(e.op), kOk);
}

TEST(CraqUpdate, VersionsFollow) {
  Single w;
  for (uint64_t i = 1; i <= 3; ++i) {
    auto e = w.write(i);
    w.step(e);
    EXPECT_EQ(w.only<Stage>().version, i);
    w.staged(e.op, 1);
    EXPECT_EQ(w.only<Reply>().version, i);
  }
}

TEST(CraqUpdate, OneAtATimePerChunkOthersInOrder) {
  Single w;
  auto a = w.write(1, 1), b = w.write(1, 2), c = w.write(1, 3);
  w.step(a);
  w.step(b);
  w.step(c);
  EXPECT_EQ(w.count<Stage>(), 0u);
  EXPECT_EQ(w.replica.statistics().queued, 2u);
  w.staged(a.op, 1);
  EXPECT_EQ(w.only<Stage>().op, b.op);
  EXPECT_EQ(w.only<Stage>().version, 2u);
  w.staged(b.op, 2);
  EXPECT_EQ(w.only<Stage>().op, c.op);
}

TEST(CraqUpdate, DifferentChunksRunTogether) {
  Single w;
  w.step(w.write(1, 1, {1, 0}));
  EXPECT_EQ(w.count<Stage>(), 1u);
  w.step(w.write(1, 2, {1, 1}));
  EXPECT_EQ(w.count<Stage>(), 1u);
}

TEST(CraqUpdate, QueueIsBounded) {
  Single w;
  w.step(w.write(1, 0xff));
  for (size_t i = 0; i < kMaxQueuedPerChunk; ++i) {
    w.step(w.write(1, static_cast<uint8_t>(i + 1)));
    EXPECT_EQ(w.count<Reply>(), 0u);
  }
  auto e = w.write(1, 0xfe);
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), kBusy);
}

TEST(CraqUpdate, QueueWaitsAreBounded) {
  Single w;
  auto a = w.write(1, 1), b = w.write(1, 2);
  w.step(a);
  w.step(b);
  w.tick(10'001);
  EXPECT_EQ(w.reply_code(a.op), kTimedOut);
  EXPECT_EQ(w.reply_code(b.op), kBusy);
  w.staged(a.op, 1);
  EXPECT_EQ(w.count<Reply>(), 0u);
  auto again = w.write(1, 1);
  w.step(again);
  EXPECT_EQ(w.reply_code(again.op), kOk) << "the update went on without its requester";
}

TEST(CraqUpdate, RefusesBadRequests) {
  Single w;
  auto bad = [&](auto change) {
    auto e = w.write(1);
    change(e);
    w.step(e);
    EXPECT_EQ(w.reply_code(e.op), kBadRequest);
    EXPECT_EQ(w.out.size(), 1u);
  };
  bad([](auto& e) { e.kind = UpdateKind::kReplace; });
  bad([](auto& e) { e.kind = UpdateKind::kNone; });
  bad([](auto& e) { e.length = 0; });
  bad([](auto& e) { e.offset = kSize; });
  bad([](auto& e) { e.offset = 0xffffffff; });
  bad([](auto& e) { e.chunk_size = 0xffffffff; });
  bad([](auto& e) { e.identity.client_id = {}; });
}

TEST(CraqUpdate, RefusesByChainStateAndLease) {
  Head w;
  auto e = w.write(1);
  e.chain_version = 2;
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), kChainVersionMismatch);
  w.step(SetLease{w.now_ns});
  e = w.write(1);
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), kLeaseExpired);
  Middle m;
  e = m.write(1);
  m.step(e);
  EXPECT_EQ(m.reply_code(e.op), kNotHead);
  World fresh;
  fresh.chain(1, 0, 0, PublicState::kWaiting);
  fresh.lease();
  e = fresh.write(1);
  fresh.step(e);
  EXPECT_EQ(fresh.reply_code(e.op), kNotServing);
}

TEST(CraqUpdate, NotAcknowledgedAfterTheLease) {
  Head w;
  auto e = w.write(1);
  w.step(e);
  w.forward_ok(w.only<Forward>().op, 1);
  w.staged(e.op, 1);
  OpId commit = w.only<Commit>().op;
  w.step(SetLease{w.now_ns});
  w.committed(commit);
  EXPECT_EQ(w.reply_code(e.op), kLeaseExpired);
}

TEST(CraqUpdate, DifferentChecksumAtSuccessorIsAHardError) {
  Head w;
  auto e = w.write(1), queued = w.write(1, 2);
  w.step(e);
  OpId forward = w.only<Forward>().op;
  w.step(queued);
  w.staged(e.op, 1);
  w.forward_ok(forward, 2);
  EXPECT_EQ(w.count<Commit>(), 0u);
  EXPECT_EQ(w.reply_code(e.op), kChecksumMismatch);
  EXPECT_EQ(w.reply_code(queued.op), kChecksumMismatch);
  auto later = w.write(1, 3);
  w.step(later);
  EXPECT_EQ(w.reply_code(later.op), kChecksumMismatch);
  auto read = w.read();
  w.step(read);
  w.tick(600);
  EXPECT_EQ(w.reply_code(read.op), kBusy) << "no guess which replica is right";
}

TEST(CraqUpdate, RemoveDeletesAndANewChunkNumbersOn) {
  Single w;
  w.put(1, 10);
  auto remove = w.write(2);
  remove.kind = UpdateKind::kRemove;
  w.step(remove);
  EXPECT_EQ(w.only<Stage>().version, 2u);
  w.staged(remove.op, 0, 0);
  EXPECT_EQ(w.reply_code(remove.op), kOk);
  EXPECT_EQ(w.replica.statistics().chunks, 0u);
  auto e = w.write(3);
  w.step(e);
  EXPECT_EQ(w.only<Stage>().version, 3u);
}

TEST(CraqUpdate, RemoveOfNothingIsDone) {
  Head w;
  auto e = w.write(1);
  e.kind = UpdateKind::kRemove;
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), kOk);
  EXPECT_EQ(w.out.size(), 1u);
}

TEST(CraqUpdate, LateCopyOfARemoveOfNothingRemovesNothing) {
  Single w;
  auto remove = w.write(1, 1);
  remove.kind = UpdateKind::kRemove;
  w.step(remove);
  EXPECT_EQ(w.reply_code(remove.op), kOk);
  auto write = w.write(1, 2);
  w.step(write);
  w.staged(write.op, 1);
  auto copy = w.write(1, 1);
  copy.kind = UpdateKind::kRemove;
  w.step(copy);
  EXPECT_EQ(w.reply_code(copy.op), kOk) << "answered as before";
  EXPECT_EQ(w.count<Stage>(), 0u) << "another client has written since";
  EXPECT_EQ(w.replica.statistics().chunks, 1u);
}

TEST(CraqUpdate, TruncateForwardsWithoutBytes) {
  Head w;
  auto e = w.write(1);
  e.kind = UpdateKind::kTruncate;
  e.length = 100;
  w.step(e);
  EXPECT_EQ(w.only<Forward>().kind, UpdateKind::kTruncate);
  EXPECT_EQ(w.only<Forward>().bytes, Forward::Bytes::kNone);
  EXPECT_EQ(w.only<Forward>().length, 100u);
}

TEST(CraqUpdate, FullDiskRefusesWritesButRemovesAndTruncates) {
  Single w;
  w.put(1, 10);
  w.step(SetSpace{true});
  auto e = w.write(2);
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(ENOSPC));
  auto remove = w.write(3);
  remove.kind = UpdateKind::kRemove;
  w.step(remove);
  EXPECT_EQ(w.count<Stage>(), 1u);
  Single cut;
  cut.put(1, 10);
  cut.step(SetSpace{true});
  auto truncate = cut.write(2);
  truncate.kind = UpdateKind::kTruncate;
  cut.step(truncate);
  EXPECT_EQ(cut.count<Stage>(), 1u);
  Tail t;
  t.step(SetSpace{true});
  auto f = t.forwarded(1, 1);
  t.step(f);
  EXPECT_EQ(t.reply_code(f.op), static_cast<uint32_t>(ENOSPC));
  auto shorter = t.forwarded(1, 1);
  shorter.kind = UpdateKind::kTruncate;
  t.step(shorter);
  EXPECT_EQ(t.count<Stage>(), 1u);
}

TEST(CraqUpdate, FullSuccessorIsToldAndAskedAgain) {
  Head w;
  auto e = w.write(1);
  w.step(e);
  OpId forward = w.only<Forward>().op;
  w.staged(e.op, 1);
  w.step(ForwardDone{forward, Status(ENOSPC, "", ""), 0});
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(ENOSPC));
  w.tick();
  EXPECT_EQ(w.only<Forward>().bytes, Forward::Bytes::kPending);
}

// ---- retries of forwards

TEST(CraqForward, RepeatedAfterConnectionLossUnderANewOperation) {
  for (uint32_t code : {kConnectionLost, kTimedOut, kBusy, kChainVersionMismatch, kNotServing}) {
    Head w;
    auto e = w.write(1);
    w.step(e);
    OpId first = w.only<Forward>().op;
    w.step(ForwardDone{first, Status(code, "", ""), 0});
    EXPECT_TRUE(w.out.empty());
    w.tick();
    auto again = w.only<Forward>();
    EXPECT_NE(again.op, first);
    EXPECT_EQ(again.source, e.op);
    EXPECT_EQ(again.version, 1u);
    w.forward_ok(first, 9);
    EXPECT_TRUE(w.out.empty()) << "an answer to a former attempt does not count";
  }
}

TEST(CraqForward, RetryOfACommittedVersionIsAnsweredAgain) {
  Tail w;
  auto e = w.forwarded(1, 1);
  w.step(e);
  w.staged(e.op, 5);
  auto retry = w.forwarded(1, 1);
  w.step(retry);
  EXPECT_EQ(w.count<Stage>(), 0u);
  EXPECT_EQ(w.reply_code(retry.op), kOk);
  EXPECT_EQ(w.only<Reply>().checksum, 5u);
}

TEST(CraqForward, RetryOfAPendingVersionJoinsIt) {
  Tail w;
  auto e = w.forwarded(1, 1), retry = w.forwarded(1, 1);
  w.step(e);
  w.step(retry);
  EXPECT_EQ(w.count<Stage>(), 0u);
  EXPECT_EQ(w.reply_code(e.op), kBusy) << "the newest request gets the answer";
  w.staged(e.op, 5);
  EXPECT_EQ(w.reply_code(retry.op), kOk);
}

TEST(CraqForward, OlderVersionIsStale) {
  Tail w;
  for (ChunkVersion v : {1, 2}) {
    auto e = w.forwarded(v, v);
    w.step(e);
    w.staged(e.op, 5);
  }
  auto late = w.forwarded(1, 1);
  w.step(late);
  EXPECT_EQ(w.reply_code(late.op), kStaleUpdate);
}

TEST(CraqForward, GapAsksForTheWholeChunk) {
  Tail w;
  auto e = w.forwarded(5, 1);
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), kMissingBase);
  EXPECT_EQ(w.count<Stage>(), 0u);
}

TEST(CraqForward, MissingBaseIsSentWholeFromDiskOnceStaged) {
  Head w;
  auto e = w.write(1);
  w.step(e);
  w.step(ForwardDone{w.only<Forward>().op, Status(kMissingBase, "", ""), 0});
  EXPECT_EQ(w.count<Forward>(), 0u) << "the whole version is not on the disk yet";
  w.staged(e.op, 44, 8192);
  auto whole = w.only<Forward>();
  EXPECT_EQ(whole.kind, UpdateKind::kReplace);
  EXPECT_EQ(whole.bytes, Forward::Bytes::kPending);
  EXPECT_EQ(whole.length, 8192u);
  EXPECT_EQ(whole.checksum, 44u);
  EXPECT_EQ(whole.identity, e.identity);
  w.forward_ok(whole.op, 44);
  EXPECT_EQ(w.count<Commit>(), 1u);
}

TEST(CraqForward, LateMessageDoesNotBringARemovedChunkBack) {
  Tail w;
  auto e = w.forwarded(1, 1);
  w.step(e);
  w.staged(e.op, 5);
  auto remove = w.forwarded(2, 2);
  remove.kind = UpdateKind::kRemove;
  w.step(remove);
  w.staged(remove.op, 0, 0);
  auto late = w.forwarded(1, 1);
  w.step(late);
  EXPECT_EQ(w.reply_code(late.op), kStaleUpdate);
  auto again = w.forwarded(2, 2);
  again.kind = UpdateKind::kRemove;
  w.step(again);
  EXPECT_EQ(w.reply_code(again.op), kOk);
  EXPECT_EQ(w.replica.statistics().chunks, 0u);
}

TEST(CraqForward, OnlyFromThePredecessorUnderTheSameChainVersion) {
  Tail w;
  auto e = w.forwarded(1, 1);
  e.from = 99;
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), kBadRequest);
  e = w.forwarded(1, 1);
  e.chain_version = 2;
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), kChainVersionMismatch);
  e = w.forwarded(1, 1);
  e.resync = true;
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), kBadRequest) << "a serving replica is not resynced";
}

TEST(CraqForward, SameVersionOfAnotherUpdateIsRefused) {
  Tail w;
  w.step(w.forwarded(1, 1));
  auto other = w.forwarded(1, 2);
  w.step(other);
  EXPECT_EQ(w.reply_code(other.op), kChecksumMismatch);
}

TEST(CraqForward, PendingOfAnOlderChainVersionIsReplaced) {
  World w;
  w.step(w.with_pending(w.on_disk(4, 1, 40), 5, 1, 50, 1));
  w.lease();
  w.chain(3, 10, 12);
  EXPECT_EQ(w.only<Forward>().version, 5u) << "re-driven";
  auto e = w.forwarded(5, 2);
  w.step(e);
  auto stage = w.only<Stage>();
  EXPECT_EQ(stage.version, 5u);
  EXPECT_EQ(stage.chain_version, 3u);
  EXPECT_EQ(stage.identity, e.identity);
  auto older = w.forwarded(5, 1);
  older.update_chain = 2;
  w.staged(e.op, 51);
  w.step(older);
  EXPECT_EQ(w.count<Stage>(), 0u) << "not the other way round";
}

// ---- exactly once

TEST(CraqDedup, RetryOfACommittedUpdateGetsTheStoredAnswer) {
  Single w;
  w.put(1, 10);
  auto retry = w.write(1);
  w.step(retry);
  EXPECT_EQ(w.out.size(), 1u);
  EXPECT_EQ(w.only<Reply>().version, 1u);
  EXPECT_EQ(w.only<Reply>().checksum, 10u);
}

TEST(CraqDedup, RetryJoinsTheUpdateInProgress) {
  Head w;
  auto e = w.write(1), retry = w.write(1);
  w.step(e);
  OpId forward = w.only<Forward>().op;
  w.step(retry);
  EXPECT_EQ(w.count<Stage>(), 0u);
  EXPECT_EQ(w.reply_code(e.op), kBusy);
  w.step(ForwardDone{forward, Status(kConnectionLost, "", ""), 0});
  w.tick();
  EXPECT_EQ(w.only<Forward>().source, retry.op) << "the bytes of the first request are gone";
  w.forward_ok(w.only<Forward>().op, 1);
  w.staged(e.op, 1);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.reply_code(retry.op), kOk);
  EXPECT_EQ(w.only<Reply>().version, 1u);
}

TEST(CraqDedup, RetryJoinsTheQueuedUpdate) {
  Single w;
  auto first = w.write(1, 2), e = w.write(1), retry = w.write(1);
  w.step(first);
  w.step(e);
  w.step(retry);
  EXPECT_EQ(w.reply_code(e.op), kBusy);
  w.staged(first.op, 1);
  EXPECT_EQ(w.only<Stage>().op, retry.op);
  w.staged(retry.op, 2);
  EXPECT_EQ(w.replica.statistics().queued, 0u);
}

TEST(CraqDedup, RetryWithOtherBytesIsRefused) {
  Head w;
  w.step(w.write(1));
  auto other = w.write(1);
  other.checksum = 999;
  w.step(other);
  EXPECT_EQ(w.reply_code(other.op), kBadRequest);
  other = w.write(1, 1, {8, 8});
  w.step(other);
  EXPECT_EQ(w.reply_code(other.op), kBadRequest);
}

TEST(CraqDedup, LowerSequenceIsOld) {
  Single w;
  w.put(5, 10);
  auto old = w.write(4);
  w.step(old);
  EXPECT_EQ(w.reply_code(old.op), kDuplicateOld);
  Single v;
  v.step(v.write(5));
  old = v.write(4, 1, {8, 8});
  v.step(old);
  EXPECT_EQ(v.reply_code(old.op), kDuplicateOld) << "also while the later one is in progress";
}

TEST(CraqDedup, ChannelsAndClientsAreApart) {
  Single w;
  w.put(5, 10);
  auto e = w.write(1);
  e.identity = identity(1, 1, 2);
  w.step(e);
  EXPECT_EQ(w.count<Stage>(), 1u);
}

TEST(CraqDedup, SurvivesARestart) {
  World w;
  w.step(w.on_disk(3, 1, 30));
  w.step(LoadDedup{identity(1, 8), kChunk, 3, 4096, 30});
  w.chain(2, 0, 0);
  w.lease();
  auto retry = w.write(8);
  w.step(retry);
  EXPECT_EQ(w.only<Reply>().version, 3u);
  EXPECT_EQ(w.count<Stage>(), 0u);
}

TEST(CraqDedup, RetryOfAPendingFromDiskCompletesIt) {
  World w;
  w.step(w.with_pending(w.on_disk(4, 1, 40), 5, 1, 50, 7));
  w.lease();
  w.chain(2, 0, 12);
  OpId forward = w.only<Forward>().op;
  auto retry = w.write(7);
  w.step(retry);
  EXPECT_TRUE(w.out.empty());
  w.forward_ok(forward, 50);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.reply_code(retry.op), kOk);
  EXPECT_EQ(w.only<Reply>().version, 5u);
}

// ---- reads

TEST(CraqRead, AnsweredUnderTheLeaseHeldAfterTheBytesWereRead) {
  Single w;
  w.put(1, 10);
  auto read = w.read();
  w.step(read);
  EXPECT_EQ(w.only<StartRead>().chunk, kChunk);
  w.step(ReadDone{read.op, {}, 1});
  EXPECT_EQ(w.only<Reply>().version, 1u);
  read = w.read();
  w.step(read);
  w.now_ns += 2'000'000 * kMs;  // the process slept between the read and the answer
  w.step(ReadDone{read.op, {}, 1});
  EXPECT_EQ(w.reply_code(read.op), kLeaseExpired);
}

TEST(CraqRead, WaitsForThePendingVersionOfItsArrivalOnly) {
  Head w;
  auto e = w.write(1), next = w.write(2);
  w.step(e);
  OpId forward = w.only<Forward>().op;
  auto read = w.read();
  w.step(read);
  EXPECT_TRUE(w.out.empty());
  w.step(next);
  w.staged(e.op, 1);
  w.forward_ok(forward, 1);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.only<StartRead>().op, read.op);
  EXPECT_EQ(w.only<Stage>().op, next.op) << "the next update does not hold the read back";
}

TEST(CraqRead, RelaxedDoesNotWait) {
  Head w;
  w.step(w.write(1));
  auto read = w.read(true);
  w.step(read);
  EXPECT_EQ(w.count<StartRead>(), 1u);
}

TEST(CraqRead, WaitIsBounded) {
  Head w;
  w.step(w.write(1));
  auto read = w.read();
  w.step(read);
  w.tick(499);
  EXPECT_FALSE(w.replied(read.op));
  w.tick(1);
  EXPECT_EQ(w.reply_code(read.op), kBusy);
  EXPECT_EQ(w.replica.statistics().waiting_reads, 0u);
}

TEST(CraqRead, RefusedUnlessServing) {
  for (auto state : {PublicState::kLastsrv, PublicState::kSyncing, PublicState::kWaiting,
                     PublicState::kOffline}) {
    World w;
    w.chain(1, 0, 0, state);
    w.lease();
    auto read = w.read();
    w.step(read);
    EXPECT_EQ(w.reply_code(read.op), kNotServing);
  }
  Single w;
  auto read = w.read();
  read.chain_version = 9;
  w.step(read);
  EXPECT_EQ(w.reply_code(read.op), kChainVersionMismatch);
}

TEST(CraqRead, LosingServingEndsReads) {
  Head w;
  w.step(w.write(1));
  auto waiting = w.read();
  w.step(waiting);
  auto started = w.read(true);
  w.step(started);
  w.chain(2, 0, 0, PublicState::kWaiting);
  EXPECT_EQ(w.reply_code(waiting.op), kNotServing);
  w.step(ReadDone{started.op, {}, 0});
  EXPECT_EQ(w.reply_code(started.op), kNotServing);
}

TEST(CraqRead, BegunInAnOlderChainVersionIsDoneAgain) {
  Single w;
  w.put(1, 10);
  auto read = w.read();
  w.step(read);
  w.chain(5, 0, 0);  // this replica may have been out of the chain in between
  w.step(ReadDone{read.op, {}, 1});
  EXPECT_EQ(w.only<StartRead>().op, read.op);
  w.step(ReadDone{read.op, {}, 1});
  EXPECT_EQ(w.reply_code(read.op), kOk);
}

TEST(CraqRead, DiskErrorIsPassedOn) {
  Single w;
  auto read = w.read();
  w.step(read);
  w.step(ReadDone{read.op, Status(kChecksumMismatch, "", ""), 0});
  EXPECT_EQ(w.reply_code(read.op), kChecksumMismatch);
}

// ---- chain changes

TEST(CraqChain, OlderAndEqualVersionsAreIgnored) {
  Head w;
  w.chain(1, 0, 0);
  EXPECT_TRUE(w.replica.chain().successor.has_value());
}

TEST(CraqChain, PendingGoesWholeToTheNewSuccessor) {
  Head w;
  auto e = w.write(1);
  w.step(e);
  OpId old = w.only<Forward>().op;
  w.staged(e.op, 7);
  w.chain(2, 0, 13);
  auto forward = w.only<Forward>();
  EXPECT_EQ(forward.to.target, 13u);
  EXPECT_EQ(forward.kind, UpdateKind::kReplace);
  EXPECT_EQ(forward.bytes, Forward::Bytes::kPending);
  EXPECT_EQ(forward.chain_version, 2u);
  EXPECT_EQ(forward.update_chain, 1u) << "the content was made under chain version 1";
  w.forward_ok(old, 7);
  EXPECT_TRUE(w.out.empty()) << "the old successor's word does not count";
  w.forward_ok(forward.op, 7);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.reply_code(e.op), kOk) << "the client of a head that stayed head is answered";
}

TEST(CraqChain, BecomingTheTailCommitsAllPending) {
  World w;
  w.step(w.with_pending(w.on_disk(4, 1, 40, {1, 0}), 5, 1, 50, 7));
  w.step(w.with_pending(w.on_disk(4, 1, 40, {1, 1}), 5, 1, 51, 8));
  w.chain(2, 10, 0);
  ASSERT_EQ(w.count<Commit>(), 2u);
  EXPECT_TRUE(w.effects<Commit>()[0].synced) << "nobody else holds it durably";
}

TEST(CraqChain, StageInFlightCommitsWhenTheSuccessorIsGone) {
  Head w;
  auto e = w.write(1);
  w.step(e);
  w.chain(2, 0, 0);
  EXPECT_EQ(w.count<Commit>(), 0u);
  w.staged(e.op, 7);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.reply_code(e.op), kOk);
}

TEST(CraqChain, QueuedUpdatesAreSentBackForTheNewVersion) {
  Head w;
  auto e = w.write(1), queued = w.write(1, 2);
  w.step(e);
  w.step(queued);
  w.chain(2, 0, 12);
  EXPECT_EQ(w.reply_code(queued.op), kChainVersionMismatch);
  EXPECT_FALSE(w.replied(e.op));
  auto again = w.write(1, 2);
  w.step(again);
  EXPECT_FALSE(w.replied(again.op)) << "the same identity may come again";
}

TEST(CraqChain, LosingServingRefusesAndKeepsThePending) {
  Head w;
  auto e = w.write(1);
  w.step(e);
  w.chain(2, 0, 0, PublicState::kOffline);
  EXPECT_EQ(w.reply_code(e.op), kNotServing);
  EXPECT_EQ(w.only<SetLocal>().state, LocalState::kOnline);
  w.staged(e.op, 7);
  EXPECT_TRUE(w.out.empty());
  EXPECT_EQ(w.replica.statistics().pending, 1u);
}

TEST(CraqChain, PredecessorIsToldToSendAgain) {
  Middle w;
  auto e = w.forwarded(1, 1);
  w.step(e);
  w.chain(2, 0, 12);  // this one is the head now
  EXPECT_EQ(w.reply_code(e.op), kChainVersionMismatch);
  w.staged(e.op, 7);
  EXPECT_EQ(w.only<Forward>().bytes, Forward::Bytes::kPending);
}

TEST(CraqChain, NewHeadAnswersTheRetryOfWhatItHoldsPending) {
  Middle w;
  auto e = w.forwarded(1, 1);
  w.step(e);
  w.staged(e.op, 7);
  w.chain(2, 0, 12);
  OpId forward = w.only<Forward>().op;
  auto retry = w.write(1);
  w.step(retry);
  EXPECT_EQ(w.count<Stage>(), 0u);
  w.forward_ok(forward, 7);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.only<Reply>().version, 1u);
}

TEST(CraqChain, FreshReplicaIsOnlineAndServingMakesItUptodate) {
  World w;
  EXPECT_EQ(w.replica.local(), LocalState::kOnline);
  w.chain(1, 0, 0);
  EXPECT_EQ(w.only<SetLocal>().state, LocalState::kUptodate);
}

TEST(CraqChain, LastsrvCommitsAllPendingThenIsUptodate) {
  World w;
  w.step(w.with_pending(w.on_disk(4, 1, 40), 5, 1, 50, 7));
  w.chain(3, 0, 0, PublicState::kLastsrv);
  EXPECT_EQ(w.count<SetLocal>(), 0u);
  auto commit = w.only<Commit>();
  EXPECT_TRUE(commit.synced);
  w.committed(commit.op);
  EXPECT_EQ(w.only<SetLocal>().state, LocalState::kUptodate);
}

TEST(CraqChain, LivingReplicaMadeLastsrvCommitsFirst) {
  Head w;
  auto e = w.write(1);
  w.step(e);
  w.chain(2, 0, 0, PublicState::kLastsrv);
  EXPECT_EQ(w.replica.local(), LocalState::kOnline);
  w.staged(e.op, 7);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.replica.local(), LocalState::kUptodate);
  World idle;
  idle.chain(3, 0, 0, PublicState::kLastsrv);
  EXPECT_EQ(idle.replica.local(), LocalState::kUptodate) << "nothing was pending";
}

TEST(CraqChain, DiskFailureEndsTheService) {
  Head w;
  auto e = w.write(1), queued = w.write(1, 2);
  w.step(e);
  w.step(queued);
  auto read = w.read();
  w.step(read);
  w.step(Staged{e.op, Status(EIO, "disk", "sync failed"), 0, 0});
  EXPECT_EQ(w.only<SetLocal>().state, LocalState::kOffline);
  for (OpId op : {e.op, queued.op, read.op}) EXPECT_EQ(w.reply_code(op), kNotServing);
  auto later = w.write(3);
  w.step(later);
  EXPECT_EQ(w.reply_code(later.op), kNotServing);
  w.chain(2, 0, 0);
  EXPECT_EQ(w.replica.local(), LocalState::kOffline) << "for the life of the process";
  auto after = w.read();
  w.step(after);
  EXPECT_EQ(w.reply_code(after.op), kNotServing);
}

TEST(CraqChain, FailedCommitEndsTheServiceToo) {
  Head w;
  auto e = w.write(1);
  w.step(e);
  w.forward_ok(w.only<Forward>().op, 1);
  w.staged(e.op, 1);
  w.step(Committed{w.only<Commit>().op, Status(EIO, "", "")});
  EXPECT_EQ(w.replica.local(), LocalState::kOffline);
  EXPECT_EQ(w.reply_code(e.op), kNotServing);
}

}  // namespace
}  // namespace fs3::craq
