// Damaged chunks (craq/repair.cc) and the pace of resync, event by event.
#include <cerrno>

#include "craq_world.h"

namespace fs3::craq {
namespace {

// A replica of three that holds kChunk at version 1 with checksum 7.
struct Held : World {
  explicit Held(TargetId before, TargetId after) {
    step(on_disk(1, 1, 7));
    chain(2, before, after);
    lease();
  }
  void damage() { step(Damaged{kChunk, 1, false}); }
  void fetched(OpId op, ChunkVersion version, ChainVersion update_chain, uint32_t checksum) {
    step(Fetched{op, {}, version, update_chain, 4096, checksum});
  }
};
struct HeldHead : Held {
  HeldHead() : Held(0, 12) {}
};
struct HeldMiddle : Held {
  HeldMiddle() : Held(10, 12) {}
};
struct HeldTail : Held {
  HeldTail() : Held(10, 0) {}
};
struct HeldAlone : Held {
  HeldAlone() : Held(0, 0) {}
};

Status damaged_too() { return Status(kDamaged, "craq", "this copy is damaged, too"); }

Status damage() { return Status(kChecksumMismatch, "engine/read", "the bytes do not match"); }

// ---- an idle chunk

TEST(CraqRepair, TheSameVersionOfANeighbourTakesThePlaceOfTheDamagedOne) {
  HeldHead w;
  w.damage();
  auto fetch = w.only<Fetch>();
  EXPECT_EQ(fetch.from.target, 12u);
  EXPECT_TRUE(fetch.settled);
  EXPECT_EQ(w.replica.statistics().damaged, 1u);
  w.fetched(fetch.op, 1, 1, 7);
  auto stage = w.only<Stage>();
  EXPECT_EQ(stage.op, fetch.op);
  EXPECT_EQ(stage.kind, UpdateKind::kReplace);
  EXPECT_EQ(stage.version, 1u);
  EXPECT_EQ(stage.chain_version, 1u);
  EXPECT_EQ(stage.length, 4096u);
  EXPECT_TRUE(stage.commit);
  EXPECT_TRUE(w.replica.damaged(kChunk)) << "until it is durable";
  w.staged(stage.op, 7);
  EXPECT_FALSE(w.replica.damaged(kChunk));
  auto counts = w.replica.statistics();
  EXPECT_EQ(counts.damage_found, 1u);
  EXPECT_EQ(counts.repaired, 1u);
  w.step(w.read());
  EXPECT_EQ(w.count<StartRead>(), 1u);
}

TEST(CraqRepair, TheTailAsksItsPredecessorForWhatItCommitted) {
  HeldTail w;
  w.damage();
  auto fetch = w.only<Fetch>();
  EXPECT_EQ(fetch.from.target, 10u);
  EXPECT_FALSE(fetch.settled) << "it waits for this replica's answer";
}

TEST(CraqRepair, OlderNewerOrOtherContentIsNotTaken) {
  struct Case {
    ChunkVersion version;
    ChainVersion chain;
    uint32_t checksum;
  };
  for (Case c : {Case{0, 0, 0}, Case{2, 2, 7}, Case{1, 2, 7}, Case{1, 1, 8}}) {
    HeldHead w;
    w.damage();
    w.fetched(w.only<Fetch>().op, c.version, c.chain, c.checksum);
    EXPECT_EQ(w.count<Stage>(), 0u) << c.version << " of " << c.chain << " sum " << c.checksum;
    EXPECT_TRUE(w.replica.damaged(kChunk));
  }
}

TEST(CraqRepair, BothNeighboursAreAskedInTurn) {
  HeldMiddle w;
  w.damage();
  std::vector<TargetId> asked;
  for (int i = 0; i < 4; ++i) {
    asked.push_back(w.only<Fetch>().from.target);
    w.step(Fetched{w.only<Fetch>().op, Status(kBusy, "", "damaged here")});
    EXPECT_EQ(w.count<Fetch>(), 0u) << "not before a pause";
    w.tick(1000);
  }
  EXPECT_EQ(asked, (std::vector<TargetId>{12, 10, 12, 10}));
}

TEST(CraqRepair, AChunkOfAnEarlierVersionIsNoDamage) {
  HeldHead w;
  w.step(Damaged{kChunk, 3, false});
  w.step(Damaged{{9, 9}, 1, false});
  EXPECT_EQ(w.count<Fetch>(), 0u);
  EXPECT_EQ(w.replica.statistics().damage_found, 0u);
}

TEST(CraqRepair, KnownFromAnEarlierLifeItBeginsByItself) {
  World w;
  auto loaded = w.on_disk(1, 1, 7);
  loaded.damaged = true;
  w.step(loaded);
  w.chain(2, 10, 0);
  w.lease();
  w.tick();
  EXPECT_EQ(w.count<Fetch>(), 1u);
}

TEST(CraqRepair, AnUpdateWaitsForTheRepairAndGoesOnWhenItFails) {
  HeldHead w;
  w.damage();
  OpId fetch = w.only<Fetch>().op;
  auto e = w.write(1);
  w.step(e);
  EXPECT_TRUE(w.out.empty());
  w.step(Fetched{fetch, Status(kConnectionLost, "", "")});
  EXPECT_EQ(w.only<Stage>().op, e.op) << "a whole overwrite needs nothing of the old bytes";
  EXPECT_EQ(w.count<Forward>(), 1u);
}

TEST(CraqRepair, ANewVersionEndsTheDamage) {
  HeldAlone w;
  w.damage();
  EXPECT_EQ(w.count<Fetch>(), 0u);
  w.put(1, 9);
  EXPECT_FALSE(w.replica.damaged(kChunk));
  EXPECT_EQ(w.replica.statistics().repaired, 0u);
}

TEST(CraqRepair, AChainChangeEndsTheFetchAndItIsAskedAgain) {
  HeldHead w;
  w.damage();
  OpId old = w.only<Fetch>().op;
  w.chain(3, 0, 13);
  EXPECT_EQ(w.only<Fetch>().from.target, 13u);
  w.fetched(old, 1, 1, 7);
  EXPECT_EQ(w.count<Stage>(), 0u);
}

TEST(CraqRepair, ARepairOnItsWayToTheDiskOutlivesAChainChange) {
  HeldMiddle w;
  w.damage();
  OpId op = w.only<Fetch>().op;
  w.fetched(op, 1, 1, 7);
  w.chain(3, 10, 0, PublicState::kSyncing);
  SyncStart start{w.next_op++, 10, 3, {}};
  w.step(start);
  EXPECT_FALSE(w.replied(start.op)) << "the list would miss what lands later";
  w.staged(op, 7);
  EXPECT_TRUE(w.replied(start.op));
}

// ---- answers of a damaged replica

TEST(CraqRepair, NothingIsReadUntilItIsRepairedWhileOthersHaveIt) {
  HeldHead w;
  w.damage();
  auto read = w.read();
  w.step(read);
  EXPECT_EQ(w.reply_code(read.op), static_cast<uint32_t>(kBusy));
  EXPECT_EQ(w.count<StartRead>(), 0u);
}

TEST(CraqRepair, TheLastReplicaReadsWhatItStillCan) {
  HeldAlone w;
  w.damage();
  auto read = w.read();
  w.step(read);
  EXPECT_EQ(w.count<StartRead>(), 1u);
  w.step(ReadDone{read.op, damage(), 0});
  EXPECT_EQ(w.reply_code(read.op), static_cast<uint32_t>(kChecksumMismatch));
}

TEST(CraqRepair, ANeighbourGetsSoundBytesWithoutALeaseOthersNothing) {
  HeldMiddle w;
  w.step(SetLease{0});
  Read fetch{w.next_op++, kChunk, 2, false, w.now_ns + 500 * kMs, 12};
  w.step(fetch);
  EXPECT_EQ(w.count<StartRead>(), 1u);
  w.step(ReadDone{fetch.op, {}, 1});
  EXPECT_EQ(w.reply_code(fetch.op), kOk);
  Read stranger{w.next_op++, kChunk, 2, false, w.now_ns + 500 * kMs, 99};
  w.step(stranger);
  EXPECT_EQ(w.reply_code(stranger.op), static_cast<uint32_t>(kBadRequest));
  Read old{w.next_op++, kChunk, 1, false, w.now_ns + 500 * kMs, 12};
  w.step(old);
  EXPECT_EQ(w.reply_code(old.op), static_cast<uint32_t>(kChainVersionMismatch));
}

TEST(CraqRepair, ADamagedNeighbourLetsItsDiskDecideAndSaysSo) {
  HeldMiddle w;
  w.damage();
  Read fetch{w.next_op++, kChunk, 2, true, w.now_ns + 500 * kMs, 12};
  w.step(fetch);
  EXPECT_EQ(w.count<StartRead>(), 1u);
  w.step(ReadDone{fetch.op, damage(), 0});
  EXPECT_EQ(w.reply_code(fetch.op), static_cast<uint32_t>(kDamaged));
}

TEST(CraqRepair, WhenEveryNeighbourIsDamagedReadsGoToTheDiskUntilTheChainChanges) {
  HeldMiddle w;
  w.damage();
  w.step(Fetched{w.only<Fetch>().op, damaged_too()});
  auto early = w.read();
  w.step(early);
  EXPECT_EQ(w.reply_code(early.op), static_cast<uint32_t>(kBusy)) << "the other one may have it";
  w.tick(1000);
  w.step(Fetched{w.only<Fetch>().op, damaged_too()});
  auto read = w.read();
  w.step(read);
  EXPECT_EQ(w.count<StartRead>(), 1u);
  w.tick(1000);
  EXPECT_EQ(w.count<Fetch>(), 0u) << "nothing new is to be expected soon";
  w.chain(3, 10, 13);
  w.tick();
  EXPECT_EQ(w.only<Fetch>().from.target, 13u);
}

TEST(CraqRepair, ASettledFetchWaitsForWhatIsPending) {
  HeldMiddle w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  OpId forward = w.only<Forward>().op;
  Read fetch{w.next_op++, kChunk, 2, false, w.now_ns + 5000 * kMs, 10};
  w.step(fetch);
  EXPECT_TRUE(w.out.empty());
  w.staged(e.op, 9);
  w.forward_ok(forward, 9);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.count<StartRead>(), 1u);
}

// ---- an update on top of damaged bytes

TEST(CraqUnsound, TheHeadTakesTheUpdateBackFromItsSuccessor) {
  HeldHead w;
  auto e = w.write(1);
  w.step(e);
  OpId forward = w.only<Forward>().op;
  w.step(Staged{e.op, damage(), 0, 0});
  EXPECT_EQ(w.count<SetLocal>(), 0u) << "one bad block is no dead disk";
  auto fetch = w.only<Fetch>();
  EXPECT_TRUE(fetch.settled);
  w.forward_ok(forward, 9);
  w.fetched(fetch.op, 2, 2, 9);
  auto stage = w.only<Stage>();
  EXPECT_EQ(stage.op, fetch.op);
  EXPECT_EQ(stage.kind, UpdateKind::kReplace);
  EXPECT_EQ(stage.version, 2u);
  EXPECT_EQ(stage.identity, e.identity);
  EXPECT_FALSE(stage.commit);
  w.staged(stage.op, 9);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.reply_code(e.op), kOk);
  EXPECT_FALSE(w.replica.damaged(kChunk));
}

TEST(CraqUnsound, TheTailHealsTheBaseAndStagesAgain) {
  HeldTail w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  auto fetch = w.only<Fetch>();
  w.fetched(fetch.op, 1, 1, 7);
  w.staged(fetch.op, 7);
  auto again = w.only<Stage>();
  EXPECT_EQ(again.op, e.op);
  EXPECT_EQ(again.kind, UpdateKind::kWrite);
  EXPECT_TRUE(again.commit);
  w.staged(e.op, 9);
  EXPECT_EQ(w.reply_code(e.op), kOk);
}

TEST(CraqUnsound, WhoeverWaitsIsNotSentAwayWithTheBytes) {
  HeldHead w;
  auto e = w.write(1);
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  OpId fetch = w.only<Fetch>().op;
  w.tick(11'000);
  EXPECT_FALSE(w.replied(e.op));
  w.fetched(fetch, 1, 1, 7);
  w.staged(fetch, 7);
  EXPECT_EQ(w.only<Stage>().op, e.op);
}

TEST(CraqUnsound, ItIsNotForgottenWhileASuccessorMayHoldIt) {
  HeldMiddle w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  w.chain(3, 0, 12);  // the head is gone, and with it the bytes
  w.lease();
  w.tick();
  auto fetch = w.only<Fetch>();
  EXPECT_EQ(fetch.from.target, 12u);
  EXPECT_TRUE(fetch.settled);
  auto other = w.write(5, 2);
  w.step(other);
  EXPECT_TRUE(w.out.empty()) << "no other update may take its number";
  w.fetched(fetch.op, 2, 2, 9);
  auto stage = w.only<Stage>();
  EXPECT_EQ(stage.version, 2u);
  EXPECT_EQ(stage.chain_version, 2u);
}

TEST(CraqUnsound, WhatNobodyBelowHoldsIsForgottenOnceTheBaseIsHealed) {
  HeldMiddle w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  w.chain(3, 0, 12);
  w.lease();
  w.tick();
  OpId fetch = w.only<Fetch>().op;
  auto other = w.write(5, 2);
  w.step(other);
  w.fetched(fetch, 1, 1, 7);
  w.staged(fetch, 7);
  auto stage = w.only<Stage>();
  EXPECT_EQ(stage.op, other.op);
  EXPECT_EQ(stage.version, 2u);
  EXPECT_EQ(stage.chain_version, 3u);
}

TEST(CraqUnsound, ThePredecessorMaySendItWholeMeanwhile) {
  HeldTail w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  auto whole = w.replaced(2, 9);
  whole.resync = false;
  whole.identity = e.identity;
  w.step(whole);
  auto stage = w.only<Stage>();
  EXPECT_EQ(stage.op, whole.op);
  EXPECT_EQ(stage.kind, UpdateKind::kReplace);
  w.staged(whole.op, 9);
  EXPECT_EQ(w.reply_code(whole.op), kOk);
}

TEST(CraqUnsound, WithoutAnotherReplicaItFailsAndOtherChunksGoOn) {
  HeldAlone w;
  auto e = w.write(1);
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(kDamaged));
  auto other = w.write(2, 1, {9, 9});
  w.step(other);
  EXPECT_EQ(w.only<Stage>().op, other.op);
  w.staged(other.op, 1);
  EXPECT_EQ(w.reply_code(other.op), kOk);
}

TEST(CraqUnsound, BehindADamagedPredecessorItIsForgottenAndAskedForWhole) {
  HeldTail w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  w.step(Fetched{w.only<Fetch>().op, damaged_too()});
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(kMissingBase));
  EXPECT_EQ(w.replica.statistics().pending, 0u);
  auto whole = w.replaced(2, 9);  // the predecessor could make it after all
  whole.resync = false;
  whole.identity = e.identity;
  w.step(whole);
  w.staged(w.only<Stage>().op, 9);
  EXPECT_EQ(w.reply_code(whole.op), kOk);
  EXPECT_FALSE(w.replica.damaged(kChunk));
}

TEST(CraqUnsound, AMiddlePassesOnThatNobodyBelowCouldMakeIt) {
  HeldMiddle w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  OpId forward = w.only<Forward>().op;
  w.step(Staged{e.op, damage(), 0, 0});
  w.step(ForwardDone{forward, Status(kMissingBase, "craq", "damaged here"), 0});
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(kMissingBase));
  EXPECT_EQ(w.replica.statistics().pending, 0u);
}

// The head of a chain in which every copy is damaged, and an update that keeps some of the bytes.
struct Hopeless : HeldHead {
  Hopeless() : e(write(1)) {
    step(e);
    OpId forward = only<Forward>().op;
    step(Staged{e.op, fs3::craq::damage(), 0, 0});
    step(ForwardDone{forward, Status(kMissingBase, "craq", "damaged there"), 0});
  }
  ClientUpdate e;
};

TEST(CraqUnsound, DamagedEverywhereItFailsAtOnceAndAVersionThatChangesNothingHasItsPlace) {
  Hopeless w;
  EXPECT_EQ(w.reply_code(w.e.op), static_cast<uint32_t>(kDamaged));
  auto stage = w.only<Stage>();
  EXPECT_EQ(stage.kind, UpdateKind::kTruncate);
  EXPECT_TRUE(stage.lost);
  EXPECT_EQ(stage.version, 2u);
  EXPECT_EQ(stage.length, 4096u);
  EXPECT_EQ(stage.identity, UpdateIdentity{});
  EXPECT_EQ(w.count<Forward>(), 0u) << "a crash may bring back the update that was given up";
  w.staged(stage.op, 7);
  auto forward = w.only<Forward>();
  EXPECT_EQ(forward.kind, UpdateKind::kTruncate);
  EXPECT_TRUE(forward.lost);
  EXPECT_EQ(forward.bytes, Forward::Bytes::kNone);
  w.forward_ok(forward.op, 7);
  w.committed(w.only<Commit>().op);
  EXPECT_TRUE(w.replica.damaged(kChunk)) << "the bytes are what they were";
  EXPECT_EQ(w.replica.statistics().damage_found, 1u);
  w.step(Fetched{w.only<Fetch>().op, damaged_too()});
  auto again = w.e;
  again.op = w.next_op++;
  w.step(again);
  EXPECT_EQ(w.only<Stage>().version, 3u) << "it was not done, so it is no retry";
}

TEST(CraqUnsound, TheSuccessorMaySaySoBeforeTheOwnDiskDoes) {
  HeldHead w;
  auto e = w.write(1);
  w.step(e);
  w.step(ForwardDone{w.only<Forward>().op, Status(kMissingBase, "craq", "damaged there"), 0});
  EXPECT_TRUE(w.out.empty()) << "the own bytes may be sound";
  w.step(Staged{e.op, damage(), 0, 0});
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(kDamaged));
  EXPECT_TRUE(w.only<Stage>().lost);
}

TEST(CraqUnsound, AMiddleMayHearSoBeforeItsOwnDiskSaysIt) {
  HeldMiddle w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  w.step(ForwardDone{w.only<Forward>().op, Status(kMissingBase, "craq", "damaged there"), 0});
  w.step(Staged{e.op, damage(), 0, 0});
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(kMissingBase));
  EXPECT_EQ(w.replica.statistics().pending, 0u);
}

TEST(CraqUnsound, WhatTheSuccessorMadeAndLostSinceIsKeptAsDamaged) {
  HeldMiddle w;
  auto e = w.forwarded(2, 1);
  e.offset = 4000;
  w.step(e);
  OpId forward = w.only<Forward>().op;
  w.step(Staged{e.op, damage(), 0, 0});
  OpId fetch = w.only<Fetch>().op;
  w.forward_ok(forward, 9);
  w.step(Fetched{fetch, damaged_too()});
  auto stage = w.only<Stage>();
  EXPECT_EQ(stage.kind, UpdateKind::kReplace);
  EXPECT_TRUE(stage.lost);
  EXPECT_EQ(stage.version, 2u);
  EXPECT_EQ(stage.length, 8096u);
  EXPECT_EQ(stage.checksum, 9u);
  w.staged(stage.op, 9, 8096);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.reply_code(e.op), kOk) << "the predecessor has it, or knows that it is damaged, too";
  EXPECT_TRUE(w.replica.damaged(kChunk));
}

TEST(CraqUnsound, ALateCopyOfWhatWasRefusedIsRefusedAlsoAfterTheRepair) {
  HeldTail w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  w.step(Fetched{w.only<Fetch>().op, damaged_too()});
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(kMissingBase));
  w.tick(20'000);
  OpId fetch = w.only<Fetch>().op;
  w.fetched(fetch, 1, 1, 7);
  w.staged(fetch, 7);
  EXPECT_FALSE(w.replica.damaged(kChunk));
  auto late = e;
  late.op = w.next_op++;
  w.step(late);
  EXPECT_EQ(w.reply_code(late.op), static_cast<uint32_t>(kMissingBase));
  w.chain(3, 10, 0);  // copies of before are not taken any more
  auto again = w.forwarded(2, 1);
  w.step(again);
  EXPECT_EQ(w.only<Stage>().op, again.op);
}

TEST(CraqUnsound, AVersionThatChangesNothingGoesToTheNextSuccessorAsWhatItIs) {
  Hopeless w;
  w.staged(w.only<Stage>().op, 7);
  w.chain(3, 0, 13);
  auto forward = w.only<Forward>();
  EXPECT_EQ(forward.kind, UpdateKind::kTruncate);
  EXPECT_TRUE(forward.lost);
  EXPECT_EQ(forward.update_chain, 2u);
}

TEST(CraqUnsound, WhatTheHeadMadeVoidGivesWay) {
  HeldTail w;
  auto e = w.forwarded(2, 1);
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  auto cut = w.forwarded(2, 0);
  cut.kind = UpdateKind::kTruncate;
  cut.identity = {};
  cut.lost = true;
  w.step(cut);
  auto stage = w.only<Stage>();
  EXPECT_EQ(stage.op, cut.op);
  EXPECT_TRUE(stage.lost);
  w.staged(cut.op, 7);
  EXPECT_EQ(w.reply_code(cut.op), kOk);
  EXPECT_TRUE(w.replica.damaged(kChunk));
}

TEST(CraqUnsound, DamagedPendingBytesAreTakenFromTheSuccessorToo) {
  HeldHead w;
  auto e = w.write(1);
  w.step(e);
  OpId forward = w.only<Forward>().op;
  w.staged(e.op, 9);
  w.step(Damaged{kChunk, 2, true});
  EXPECT_EQ(w.count<Discard>(), 1u);
  OpId fetch = w.only<Fetch>().op;
  w.forward_ok(forward, 9);
  EXPECT_EQ(w.count<Commit>(), 0u);
  w.fetched(fetch, 2, 2, 9);
  w.staged(fetch, 9);
  EXPECT_EQ(w.count<Commit>(), 1u);
}

TEST(CraqUnsound, OtherErrorsOfTheDiskEndTheService) {
  HeldHead w;
  auto e = w.write(1);
  w.step(e);
  w.step(Staged{e.op, Status(EIO, "engine", "the disk failed"), 0, 0});
  EXPECT_EQ(w.only<SetLocal>().state, LocalState::kOffline);
}

// ---- resync

struct Source : World {  // 11 serves alone and syncs 12; four chunks of 4096 bytes each
  Source() {
    for (uint64_t i = 0; i < 4; ++i) step(on_disk(1, 1, 7, {7, i}));
    chain(2, 0, 12, PublicState::kServing, true);
    ask = only<AskPeerChunks>().op;
    lease();
  }
  void list(std::vector<PeerChunk> chunks) { step(PeerChunks{ask, {}, std::move(chunks), true}); }
  PeerChunk same(uint64_t index) { return {{7, index}, 1, 1, 4096, 7, false}; }
  OpId ask = 0;
};

TEST(CraqResync, WhatIsEqualIsNotSent) {
  Source w;
  w.list({w.same(0), w.same(1), w.same(2), w.same(3)});
  EXPECT_EQ(w.count<Forward>(), 0u);
  EXPECT_EQ(w.count<TellPeerDone>(), 1u);
  EXPECT_EQ(w.replica.statistics().resync_skipped, 4u);
  EXPECT_EQ(w.replica.statistics().resync_bytes, 0u);
}

TEST(CraqResync, OnlyWhatDiffersIsSentSeveralAtATime) {
  Source w;
  auto other_sum = w.same(1), pending = w.same(3);
  other_sum.checksum = 8;
  pending.pending = true;
  w.list({w.same(0), other_sum, pending});
  std::vector<uint64_t> sent;
  for (const auto& forward : w.effects<Forward>()) sent.push_back(forward.chunk.index);
  EXPECT_EQ(sent, (std::vector<uint64_t>{1, 2, 3}));
  EXPECT_EQ(w.replica.statistics().resync_bytes, 3u * 4096);
  for (const auto& forward : w.effects<Forward>()) w.forward_ok(forward.op, 7);
  EXPECT_EQ(w.count<TellPeerDone>(), 1u);
  EXPECT_EQ(w.replica.statistics().resync_sent, 3u);
}

TEST(CraqResync, SendsNoMoreThanItIsGranted) {
  Source w;
  w.step(GrantResync{5000});
  w.list({});
  auto first = w.effects<Forward>();
  ASSERT_EQ(first.size(), 2u) << "the second one goes into debt";
  for (const auto& forward : first) w.forward_ok(forward.op, 7);
  EXPECT_EQ(w.count<Forward>(), 0u);
  w.step(GrantResync{3000});
  EXPECT_EQ(w.count<Forward>(), 0u) << "it pays the debt first";
  w.step(GrantResync{3000});
  EXPECT_EQ(w.count<Forward>(), 1u);
  EXPECT_EQ(w.count<TellPeerDone>(), 0u);
}

TEST(CraqResync, UnusedGrantsLapse) {
  Source w;
  for (int i = 0; i < 100; ++i) w.step(GrantResync{4096});
  w.list({});
  EXPECT_EQ(w.count<Forward>(), 1u);
}

TEST(CraqResync, LargeChunksGoFewAtATimeWhileClientsWork) {
  for (bool busy : {false, true}) {
    World w;
    for (uint64_t i = 0; i < 12; ++i) {
      auto chunk = w.on_disk(1, 1, 7, {7, i});
      chunk.length = 1 << 20;
      w.step(chunk);
    }
    w.chain(2, 0, 12, PublicState::kServing, true);
    OpId ask = w.only<AskPeerChunks>().op;
    w.lease();
    if (busy) w.step(w.write(1, 1, {9, 9}));
    w.step(PeerChunks{ask, {}, {}, true});
    auto first = w.effects<Forward>();
    std::erase_if(first, [](const Forward& f) { return !f.resync; });
    ASSERT_EQ(first.size(), 1u);
    w.forward_ok(first[0].op, 7);
    EXPECT_EQ(w.count<Forward>(), 1u) << "the next takes its place";
    size_t more = 0;
    for (int round = 0; round < 3; ++round) {
      w.tick(250);
      more += w.count<Forward>();
    }
    EXPECT_EQ(more, 0u) << "small at first";
    if (busy) continue;
    for (int round = 0; round < 6; ++round) {
      w.tick(250);
      more += w.count<Forward>();
    }
    EXPECT_EQ(more, 10u) << "nobody works: all that is left";
  }
}

TEST(CraqResync, ADamagedChunkIsNotSentButTakenFromALevelSuccessor) {
  Source w;
  w.step(Damaged{{7, 2}, 1, false});
  EXPECT_EQ(w.count<Fetch>(), 0u) << "not known to be level";
  w.list({w.same(2)});
  for (const auto& forward : w.effects<Forward>()) {
    EXPECT_NE(forward.chunk.index, 2u);
    w.forward_ok(forward.op, 7);
  }
  w.tick(1000);
  auto fetch = w.only<Fetch>();
  EXPECT_EQ(fetch.chunk.index, 2u);
  EXPECT_EQ(fetch.from.target, 12u);
}

TEST(CraqResync, AChunkOfWhichNobodyHasSoundBytesIsSentAsDamaged) {
  Source w;
  w.list({w.same(0), w.same(1), w.same(3)});
  auto tried = w.only<Forward>();
  EXPECT_EQ(tried.chunk.index, 2u);
  EXPECT_FALSE(tried.lost);
  w.step(Damaged{{7, 2}, 1, false});
  w.step(ForwardDone{tried.op, Status(kBusy, "", "damaged"), 0});
  EXPECT_EQ(w.count<TellPeerDone>(), 0u);
  w.tick(1000);
  auto lost = w.only<Forward>();
  EXPECT_TRUE(lost.lost);
  EXPECT_EQ(lost.kind, UpdateKind::kReplace);
  EXPECT_EQ(lost.bytes, Forward::Bytes::kNone);
  EXPECT_EQ(lost.length, 4096u);
  EXPECT_EQ(lost.checksum, 7u);
  w.forward_ok(lost.op, 7);
  EXPECT_EQ(w.count<TellPeerDone>(), 1u) << "the chain becomes whole";
}

TEST(CraqResync, KnownFromAnEarlierLifeTheDiskIsTriedOnceMore) {
  World w;
  auto loaded = w.on_disk(1, 1, 7);
  loaded.damaged = true;
  w.step(loaded);
  w.chain(2, 0, 12, PublicState::kServing, true);
  OpId ask = w.only<AskPeerChunks>().op;
  w.step(PeerChunks{ask, {}, {}, true});
  EXPECT_FALSE(w.only<Forward>().lost);
}

TEST(CraqResync, ADamagedChunkThatIsWrittenAnewIsSentWhole) {
  Source w;
  w.list({w.same(0), w.same(1), w.same(3)});
  auto tried = w.only<Forward>();
  w.step(Damaged{{7, 2}, 1, false});
  w.step(ForwardDone{tried.op, Status(kBusy, "", "damaged"), 0});
  auto e = w.write(1, 1, {7, 2});  // written anew, whole
  w.step(e);
  w.staged(e.op, 9);
  auto forward = w.only<Forward>();
  EXPECT_EQ(forward.kind, UpdateKind::kReplace);
  w.forward_ok(forward.op, 9);
  w.committed(w.only<Commit>().op);
  EXPECT_EQ(w.reply_code(e.op), kOk);
  w.tick(1000);
  EXPECT_EQ(w.count<TellPeerDone>(), 1u);
}

struct Syncing : World {  // 10 syncs 11, whose copy of kChunk is damaged
  Syncing() {
    auto loaded = on_disk(1, 1, 7);
    loaded.damaged = true;
    step(loaded);
    chain(2, 10, 0, PublicState::kSyncing);
    SyncStart start{next_op++, 10, 2, {}};
    step(start);
    EXPECT_EQ(reply_code(start.op), kOk);
  }
};

TEST(CraqResync, DamageArrivesAsDamage) {
  World w;
  w.step(w.on_disk(1, 1, 7));
  w.chain(2, 10, 0, PublicState::kSyncing);
  w.step(SyncStart{w.next_op++, 10, 2, {}});
  auto lost = w.replaced(3, 9);
  lost.lost = true;
  w.step(lost);
  auto stage = w.only<Stage>();
  EXPECT_TRUE(stage.lost);
  EXPECT_TRUE(stage.commit);
  EXPECT_EQ(stage.checksum, 9u);
  w.staged(stage.op, 9);
  EXPECT_EQ(w.reply_code(lost.op), kOk);
  EXPECT_TRUE(w.replica.damaged(kChunk));
  w.step(Fetched{w.only<Fetch>().op, damaged_too()});
  auto e = w.forwarded(4, 1);  // keeps bytes of it
  w.step(e);
  w.step(Staged{e.op, damage(), 0, 0});
  w.step(Fetched{w.only<Fetch>().op, damaged_too()});
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(kMissingBase));
}

TEST(CraqResync, WhatIsDamagedHereAsThereKeepsWhatCanBeRead) {
  Syncing w;
  auto lost = w.replaced(1, 7);
  lost.update_chain = 1;
  lost.lost = true;
  w.step(lost);
  EXPECT_EQ(w.count<Stage>(), 0u);
  EXPECT_EQ(w.reply_code(lost.op), kOk);
}

TEST(CraqResync, OnlyAChunkAsAWholeIsSentAsDamaged) {
  HeldTail w;
  auto e = w.forwarded(2, 1);
  e.lost = true;
  w.step(e);
  EXPECT_EQ(w.reply_code(e.op), static_cast<uint32_t>(kBadRequest));
}

TEST(CraqResync, ADamagedCopyIsNotLevelBecauseItsNameIsTheSame) {
  Syncing w;
  auto e = w.replaced(1, 7);
  e.update_chain = 1;
  w.step(e);
  EXPECT_EQ(w.only<Stage>().kind, UpdateKind::kReplace);
  w.staged(e.op, 7);
  EXPECT_EQ(w.reply_code(e.op), kOk);
  EXPECT_FALSE(w.replica.damaged(kChunk));
}

}  // namespace
}  // namespace fs3::craq
