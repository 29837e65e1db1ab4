// Decoding of storage requests, the routing view, reassembly of large chunks, latency buckets.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "common.pb.h"
#include "storage.pb.h"
#include "storage/assembler.h"
#include "storage/codec.h"
#include "storage/metrics.h"
#include "storage/routing.h"
#include "storage/warnings.h"

namespace fs3::storage {
namespace {

namespace pb = proto::storage;

pb::WriteRequest write_request() {
  pb::WriteRequest request;
  request.set_target_id(11);
  request.set_chain_id(1);
  request.set_chain_version(7);
  request.mutable_chunk()->set_inode(5);
  request.mutable_chunk()->set_index(2);
  request.set_offset(100);
  request.set_length(4096);
  request.set_chunk_size(1 << 20);
  request.set_checksum(0xabcd);
  request.mutable_identity()->set_client_id(std::string(16, 'c'));
  request.mutable_identity()->set_channel(3);
  request.mutable_identity()->set_sequence(9);
  return request;
}

TEST(StorageCodec, WriteRoundTrip) {
  auto command = decode_write(write_request().SerializeAsString());
  ASSERT_TRUE(command.ok()) << command.status().to_string();
  EXPECT_EQ(command->to.target, 11u);
  EXPECT_EQ(command->to.chain, 1u);
  EXPECT_EQ(command->event.chunk, (ChunkId{5, 2}));
  EXPECT_EQ(command->event.kind, UpdateKind::kWrite);
  EXPECT_EQ(command->event.offset, 100u);
  EXPECT_EQ(command->event.length, 4096u);
  EXPECT_EQ(command->event.chain_version, 7u);
  EXPECT_EQ(command->event.identity.channel, 3u);
  EXPECT_EQ(command->event.identity.sequence, 9u);
  EXPECT_EQ(command->event.identity.client_id[15], 'c');
}

struct BadWrite {
  const char* field;
  std::function<void(pb::WriteRequest&)> damage;
};

TEST(StorageCodec, EveryBadFieldOfAWriteIsNamed) {
  const BadWrite cases[] = {
      {"chunk_size", [](auto& r) { r.set_chunk_size(0); }},
      {"chunk_size", [](auto& r) { r.set_chunk_size(3 << 20); }},
      {"chunk_size", [](auto& r) { r.set_chunk_size(128 << 20); }},
      {"chunk_size", [](auto& r) { r.set_chunk_size(32 << 10); }},
      {"length", [](auto& r) { r.set_length(0); }},
      {"length", [](auto& r) { r.set_length((4 << 20) + 1), r.set_chunk_size(64 << 20); }},
      {"length", [](auto& r) { r.set_offset((1 << 20) - 1); }},
      {"offset", [](auto& r) { r.set_offset(0xffffffff); }},
      {"chunk", [](auto& r) { r.clear_chunk(); }},
      {"chunk.inode", [](auto& r) { r.mutable_chunk()->set_inode(0); }},
      {"identity", [](auto& r) { r.clear_identity(); }},
      {"identity.client_id",
       [](auto& r) { r.mutable_identity()->set_client_id(std::string(15, 'c')); }},
      {"identity.client_id",
       [](auto& r) { r.mutable_identity()->set_client_id(std::string(17, 'c')); }},
  };
  for (const auto& bad : cases) {
    auto request = write_request();
    bad.damage(request);
    auto command = decode_write(request.SerializeAsString());
    ASSERT_FALSE(command.ok()) << bad.field;
    EXPECT_EQ(command.status().code(), kBadRequest);
    std::string detail(command.status().detail());
    EXPECT_EQ(detail.substr(0, detail.find(": ")), bad.field) << detail;
  }
}

TEST(StorageCodec, GarbageIsRefusedByEveryDecoder) {
  std::string garbage = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
  EXPECT_EQ(decode_read(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_write(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_truncate(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_remove(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_forward(garbage, 0).status().code(), kBadRequest);
  EXPECT_EQ(decode_sync_start(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_sync_done(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_query_last(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_query_chunks(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_dump(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_read_raw(garbage).status().code(), kBadRequest);
  EXPECT_EQ(decode_update_reply(garbage).status().code(), kBadRequest);
  craq::PeerChunks page;
  EXPECT_EQ(decode_sync_start_reply(garbage, page).code(), kBadRequest);
}

TEST(StorageCodec, EveryBadFieldOfAQueryForChunksIsNamed) {
  auto request = [](auto damage) {
    pb::QueryChunksRequest sound;
    sound.set_inode(5);
    sound.set_step(3);
    sound.set_chunk_size(1 << 20);
    sound.set_limit(kMaxPage);
    damage(sound);
    return decode_query_chunks(sound.SerializeAsString());
  };
  EXPECT_TRUE(request([](auto&) {}).ok());
  auto field = [&](auto damage) { return std::string(request(damage).status().detail()); };
  EXPECT_TRUE(field([](auto& r) { r.set_inode(0); }).starts_with("inode"));
  EXPECT_TRUE(field([](auto& r) { r.set_step(0); }).starts_with("step"));
  EXPECT_TRUE(field([](auto& r) { r.set_chunk_size(5); }).starts_with("chunk_size"));
  EXPECT_TRUE(field([](auto& r) { r.set_limit(0); }).starts_with("limit"));
  EXPECT_TRUE(field([](auto& r) { r.set_limit(kMaxPage + 1); }).starts_with("limit"));
}

craq::Forward forward_effect(UpdateKind kind, uint32_t length) {
  craq::Forward effect;
  effect.op = craq::kOwnOp | 1;
  effect.to = {12, 2, false};
  effect.chunk = {5, 2};
  effect.kind = kind;
  effect.version = 4;
  effect.chain_version = 7;
  effect.update_chain = 6;
  effect.length = length;
  effect.chunk_size = 64 << 20;
  effect.checksum = 77;
  effect.identity.sequence = 9;
  effect.resync = true;
  return effect;
}

TEST(StorageCodec, ForwardRoundTrip) {
  auto body = encode_forward(forward_effect(UpdateKind::kReplace, 9 << 20), 1, 11, 8 << 20);
  auto command = decode_forward(body, 1 << 20);
  ASSERT_TRUE(command.ok()) << command.status().to_string();
  EXPECT_EQ(command->to.target, 12u);
  EXPECT_EQ(command->event.from, 11u);
  EXPECT_EQ(command->event.kind, UpdateKind::kReplace);
  EXPECT_EQ(command->event.version, 4u);
  EXPECT_EQ(command->event.chain_version, 7u);
  EXPECT_EQ(command->event.update_chain, 6u);
  EXPECT_EQ(command->event.length, 9u << 20);
  EXPECT_EQ(command->event.identity.sequence, 9u);
  EXPECT_TRUE(command->event.resync);
  EXPECT_EQ(command->piece_offset, 8u << 20);
}

TEST(StorageCodec, ADamagedChunkComesWithoutBytes) {
  for (auto kind : {UpdateKind::kReplace, UpdateKind::kTruncate}) {
    auto effect = forward_effect(kind, 9 << 20);
    effect.lost = true;
    auto body = encode_forward(effect, 1, 11, 0);
    auto command = decode_forward(body, 0);
    ASSERT_TRUE(command.ok()) << command.status().to_string();
    EXPECT_TRUE(command->event.lost);
    EXPECT_EQ(command->event.length, 9u << 20);
    EXPECT_FALSE(decode_forward(body, 1).ok());
  }
  for (auto kind : {UpdateKind::kWrite, UpdateKind::kRemove}) {
    auto effect = forward_effect(kind, 4096);
    effect.lost = true;
    EXPECT_FALSE(decode_forward(encode_forward(effect, 1, 11, 0), 0).ok());
  }
  auto nothing = forward_effect(UpdateKind::kReplace, 0);
  nothing.lost = true;
  EXPECT_FALSE(decode_forward(encode_forward(nothing, 1, 11, 0), 0).ok());
}

TEST(StorageCodec, ForwardPayloadMustBeWhatTheFieldsSay) {
  auto write = encode_forward(forward_effect(UpdateKind::kWrite, 4096), 1, 11, 0);
  EXPECT_TRUE(decode_forward(write, 4096).ok());
  EXPECT_FALSE(decode_forward(write, 4095).ok());
  EXPECT_FALSE(decode_forward(write, 0).ok());
  auto piece_of_write = encode_forward(forward_effect(UpdateKind::kWrite, 4096), 1, 11, 2048);
  EXPECT_FALSE(decode_forward(piece_of_write, 2048).ok());
  auto remove = encode_forward(forward_effect(UpdateKind::kRemove, 0), 1, 11, 0);
  EXPECT_TRUE(decode_forward(remove, 0).ok());
  EXPECT_FALSE(decode_forward(remove, 1).ok());
  auto replace = encode_forward(forward_effect(UpdateKind::kReplace, 9 << 20), 1, 11, 8 << 20);
  EXPECT_FALSE(decode_forward(replace, (1 << 20) + 1).ok());
  EXPECT_FALSE(decode_forward(replace, 0).ok());
  auto beyond = encode_forward(forward_effect(UpdateKind::kReplace, 9 << 20), 1, 11, 10 << 20);
  EXPECT_FALSE(decode_forward(beyond, 0).ok());
  auto empty = encode_forward(forward_effect(UpdateKind::kReplace, 0), 1, 11, 0);
  EXPECT_TRUE(decode_forward(empty, 0).ok());
}

TEST(StorageCodec, OnlyARemovalOfResyncHasNoVersion) {
  auto effect = forward_effect(UpdateKind::kRemove, 0);
  effect.version = 0;
  effect.chunk_size = 0;
  EXPECT_TRUE(decode_forward(encode_forward(effect, 1, 11, 0), 0).ok());
  effect.resync = false;
  EXPECT_FALSE(decode_forward(encode_forward(effect, 1, 11, 0), 0).ok());
}

TEST(StorageCodec, SyncStartCarriesRowsAndPage) {
  craq::AskPeerChunks ask;
  ask.peer = {12, 2, true};
  ask.chain_version = 7;
  ask.after = ChunkId{5, 2};
  craq::LoadDedup row;
  row.identity.client_id[0] = 1;
  row.identity.sequence = 3;
  row.chunk = {5, 2};
  row.version = 4;
  ask.dedup = {row};
  auto command = decode_sync_start(encode_sync_start(ask, 1, 11, ask.dedup, 100));
  ASSERT_TRUE(command.ok()) << command.status().to_string();
  EXPECT_EQ(command->limit, 100u);
  EXPECT_EQ(command->after, (ChunkId{5, 2}));
  ASSERT_EQ(command->event.dedup.size(), 1u);
  EXPECT_EQ(command->event.dedup[0].identity, row.identity);
  EXPECT_FALSE(decode_sync_start(encode_sync_start(ask, 1, 11, ask.dedup, kMaxPage + 1)).ok());
}

TEST(StorageCodec, PageRoundTrip) {
  engine::ChunkState both{{5, 1}, {4, 2, 100, 8}, engine::PendingInfo{}};
  both.pending->version = 5;
  engine::ChunkState committed{{5, 2}, {1, 2, 10, 9}, std::nullopt};
  craq::PeerChunks page;
  ASSERT_TRUE(decode_sync_start_reply(encode_sync_start_reply({both, committed}, true), page).ok());
  ASSERT_EQ(page.chunks.size(), 2u);
  EXPECT_TRUE(page.end);
  EXPECT_TRUE(page.chunks[0].pending);
  EXPECT_EQ(page.chunks[0].version, 4u);
  EXPECT_FALSE(page.chunks[1].pending);
  EXPECT_EQ(page.chunks[1].length, 10u);
  EXPECT_EQ(page.chunks[1].checksum, 9u);
}

// ---- routing

proto::RoutingInfo routing_of(std::vector<std::pair<uint64_t, proto::TargetState>> targets) {
  proto::RoutingInfo info;
  info.set_version(3);
  info.set_cluster_id(std::string(16, 'k'));
  auto* chain = info.add_chains();
  chain->set_id(1);
  chain->set_version(7);
  for (auto [id, state] : targets) {
    auto* target = chain->add_targets();
    target->set_target_id(id);
    target->set_node_id(static_cast<uint32_t>(id / 10));
    target->set_state(state);
  }
  return info;
}

craq::ChainView view_at(const proto::RoutingInfo& info, uint32_t node) {
  auto routing = Routing::parse(info.SerializeAsString(), node);
  EXPECT_TRUE(routing.ok()) << routing.status().to_string();
  EXPECT_EQ(routing->own.size(), 1u);
  return routing->own.at(0).view;
}

TEST(StorageRouting, NeighboursAlongTheChain) {
  auto info = routing_of({{10, proto::SERVING}, {20, proto::SERVING}, {30, proto::SYNCING}});
  auto head = view_at(info, 1);
  EXPECT_FALSE(head.predecessor);
  EXPECT_EQ(head.successor->target, 20u);
  EXPECT_FALSE(head.successor->syncing);
  auto tail = view_at(info, 2);
  EXPECT_EQ(tail.predecessor->target, 10u);
  EXPECT_EQ(tail.successor->target, 30u);
  EXPECT_TRUE(tail.successor->syncing);
  auto syncing = view_at(info, 3);
  EXPECT_EQ(syncing.self, craq::PublicState::kSyncing);
  EXPECT_EQ(syncing.predecessor->target, 20u);
  EXPECT_FALSE(syncing.successor);
  EXPECT_EQ(syncing.version, 7u);
}

TEST(StorageRouting, OthersHaveNoNeighbours) {
  auto info = routing_of({{10, proto::LASTSRV}, {20, proto::WAITING}, {30, proto::OFFLINE}});
  for (uint32_t node : {1, 2, 3}) {
    auto view = view_at(info, node);
    EXPECT_FALSE(view.predecessor);
    EXPECT_FALSE(view.successor);
  }
}

TEST(StorageRouting, BadInfoIsNamed) {
  auto twice = routing_of({{10, proto::SERVING}, {10, proto::SERVING}});
  EXPECT_EQ(Routing::parse(twice.SerializeAsString(), 1).status().code(), kBadRequest);
  auto unversioned = routing_of({{10, proto::SERVING}});
  unversioned.mutable_chains(0)->set_version(0);
  EXPECT_EQ(Routing::parse(unversioned.SerializeAsString(), 1).status().code(), kBadRequest);
  EXPECT_EQ(Routing::parse("\xff\xff", 1).status().code(), kBadRequest);
}

// ---- large chunks in pieces

ForwardCommand piece(uint32_t offset, uint32_t length, ChunkVersion version = 4) {
  ForwardCommand command;
  command.to = {12, 1};
  command.event.from = 11;
  command.event.chunk = {5, 2};
  command.event.version = version;
  command.event.length = length;
  command.piece_offset = offset;
  return command;
}

TEST(StorageAssembler, WholeChunkPassesThrough) {
  Assembler assembler;
  Buffer bytes = Buffer::copy_of("abc", 3);
  auto whole = assembler.add(piece(0, 3), bytes, 0);
  ASSERT_TRUE(whole.ok() && *whole);
  EXPECT_EQ((*whole)->data(), bytes.data());
}

TEST(StorageAssembler, PiecesInOrderMakeTheChunk) {
  Assembler assembler;
  auto first = assembler.add(piece(0, 6), Buffer::copy_of("abc", 3), 0);
  ASSERT_TRUE(first.ok());
  EXPECT_FALSE(*first);
  auto last = assembler.add(piece(3, 6), Buffer::copy_of("def", 3), 0);
  ASSERT_TRUE(last.ok() && *last);
  EXPECT_EQ(std::memcmp((*last)->data(), "abcdef", 6), 0);
  EXPECT_EQ(assembler.open_chunks(), 0u);
}

TEST(StorageAssembler, WhatDoesNotContinueIsRefused) {
  Assembler assembler;
  EXPECT_EQ(assembler.add(piece(3, 6), Buffer::copy_of("def", 3), 0).status().code(), kMissingBase);
  ASSERT_TRUE(assembler.add(piece(0, 9), Buffer::copy_of("abc", 3), 0).ok());
  EXPECT_EQ(assembler.add(piece(6, 9), Buffer::copy_of("ghi", 3), 0).status().code(), kMissingBase);
  EXPECT_EQ(assembler.add(piece(3, 9, 5), Buffer::copy_of("def", 3), 0).status().code(),
            kMissingBase);
  ASSERT_TRUE(assembler.add(piece(0, 6), Buffer::copy_of("ABC", 3), 0).ok());
  auto whole = assembler.add(piece(3, 6), Buffer::copy_of("DEF", 3), 0);
  ASSERT_TRUE(whole.ok() && *whole);
  EXPECT_EQ(std::memcmp((*whole)->data(), "ABCDEF", 6), 0);
}

TEST(StorageAssembler, IsBoundedAndForgets) {
  Assembler assembler;
  for (uint64_t i = 0; i <= Assembler::kMaxOpen; ++i) {
    auto command = piece(0, 6);
    command.event.chunk.index = i;
    auto status = assembler.add(command, Buffer::copy_of("abc", 3), 0).status();
    EXPECT_EQ(status.code(), i < Assembler::kMaxOpen ? kOk : kBusy);
  }
  assembler.expire(Assembler::kIdleNs);
  EXPECT_EQ(assembler.open_chunks(), Assembler::kMaxOpen);
  assembler.expire(Assembler::kIdleNs + 1);
  EXPECT_EQ(assembler.open_chunks(), 0u);
  EXPECT_TRUE(assembler.add(piece(0, 6), Buffer::copy_of("abc", 3), 0).ok());
}

// ---- counting

TEST(StorageMetrics, EveryDurationFallsUnderItsBound) {
  for (int64_t ns = 1; ns < 60'000'000'000; ns = ns * 5 / 4 + 1) {
    size_t bucket = LatencyHistogram::bucket_of(ns);
    ASSERT_LT(bucket, LatencyHistogram::kBuckets);
    if (bucket + 1 < LatencyHistogram::kBuckets) {
      EXPECT_LE(ns, LatencyHistogram::upper_ns(bucket));
    }
    if (bucket > 0) {
      EXPECT_GT(ns, LatencyHistogram::upper_ns(bucket - 1));
    }
  }
}

TEST(StorageWarnings, AreBoundedAndCounted) {
  int woken = 0;
  WarningLog log([&] { ++woken; });
  for (int i = 0; i < 30; ++i) log.add(2'000'000'000, "event " + std::to_string(i));
  EXPECT_EQ(woken, WarningLog::kPerSecond);
  auto lines = log.take();
  ASSERT_EQ(lines.size(), static_cast<size_t>(WarningLog::kPerSecond + 1));
  EXPECT_EQ(lines.front(), "event 0");
  EXPECT_EQ(lines.back(), "10 further warnings were suppressed");
  log.add(3'000'000'000, "later");
  EXPECT_EQ(log.take(), std::vector<std::string>{"later"});
}

}  // namespace
}  // namespace fs3::storage
