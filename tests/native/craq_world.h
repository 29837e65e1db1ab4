// A replica under a test's hand: feed events, look at the effects of each.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "craq/replica.h"

namespace fs3::craq {

constexpr int64_t kMs = 1'000'000;
constexpr ChunkId kChunk{7, 3};
constexpr uint32_t kSize = 1u << 20;

inline UpdateIdentity identity(uint8_t client, uint64_t sequence, uint32_t channel = 1) {
  UpdateIdentity out;
  out.client_id.fill(client);
  out.channel = channel;
  out.sequence = sequence;
  return out;
}

class World {
 public:
  explicit World(TargetId target = 11) : replica(target) {}

  // The effects of this step only.
  const std::vector<Effect>& step(const Event& event) {
    out.clear();
    replica.step(now_ns, event, out);
    for (const auto& effect : out) all.push_back(effect);
    return out;
  }

  // As member of a chain whose other members are given by target id; 0 = none.
  void chain(ChainVersion version, TargetId before, TargetId after,
             PublicState self = PublicState::kServing, bool after_syncs = false) {
    ChainView view;
    view.chain = 5;
    view.version = version;
    view.self = self;
    if (before) view.predecessor = Peer{before, static_cast<uint32_t>(before), false};
    if (after) view.successor = Peer{after, static_cast<uint32_t>(after), after_syncs};
    step(SetChain{view});
    chain_version = version;
    predecessor = before;
  }
  void lease(int64_t for_ms = 1'000'000) { step(SetLease{now_ns + for_ms * kMs}); }
  void tick(int64_t after_ms = 100) {
    now_ns += after_ms * kMs;
    step(Tick{});
  }

  ClientUpdate write(uint64_t sequence, uint8_t client = 1, ChunkId chunk = kChunk) {
    ClientUpdate e;
    e.op = next_op++;
    e.chunk = chunk;
    e.kind = UpdateKind::kWrite;
    e.offset = 0;
    e.length = 4096;
    e.chunk_size = kSize;
    e.checksum = static_cast<uint32_t>(sequence);
    e.chain_version = chain_version;
    e.identity = identity(client, sequence);
    return e;
  }
  Forwarded forwarded(ChunkVersion version, uint64_t sequence, ChunkId chunk = kChunk) {
    Forwarded e;
    e.op = next_op++;
    e.from = predecessor;
    e.chunk = chunk;
    e.kind = UpdateKind::kWrite;
    e.version = version;
    e.length = 4096;
    e.chunk_size = kSize;
    e.checksum = static_cast<uint32_t>(sequence);
    e.chain_version = e.update_chain = chain_version;
    e.identity = identity(1, sequence);
    return e;
  }
  Forwarded replaced(ChunkVersion version, uint32_t checksum, ChunkId chunk = kChunk) {
    Forwarded e = forwarded(version, 0, chunk);
    e.kind = UpdateKind::kReplace;
    e.checksum = checksum;
    e.identity = {};
    e.resync = true;
    return e;
  }
  Read read(bool relaxed = false, ChunkId chunk = kChunk) {
    return {next_op++, chunk, chain_version, relaxed, now_ns + 500 * kMs};
  }
  LoadChunk on_disk(ChunkVersion committed, ChainVersion chain, uint32_t checksum,
                    ChunkId chunk = kChunk) {
    LoadChunk e;
    e.chunk = chunk;
    e.committed = committed;
    e.committed_chain = chain;
    e.length = 4096;
    e.checksum = checksum;
    return e;
  }
  LoadChunk with_pending(LoadChunk e, ChunkVersion pending, ChainVersion chain, uint32_t checksum,
                         uint64_t sequence) {
    e.pending = pending;
    e.pending_chain = chain;
    e.pending_kind = UpdateKind::kWrite;
    e.pending_length = 4096;
    e.pending_checksum = checksum;
    e.pending_identity = identity(1, sequence);
    return e;
  }

  // ---- the disk and the successor of a well-behaved world

  void staged(OpId op, uint32_t checksum, uint32_t length = 4096) {
    step(Staged{op, {}, length, checksum});
  }
  void committed(OpId op) { step(Committed{op, {}}); }
  void forward_ok(OpId op, uint32_t checksum) { step(ForwardDone{op, {}, checksum}); }

  // Writes and commits one version at a single serving replica or a tail.
  void put(uint64_t sequence, uint32_t checksum, ChunkId chunk = kChunk) {
    ClientUpdate e = write(sequence, 1, chunk);
    step(e);
    staged(e.op, checksum);
  }

  // ---- what the last step did

  template <typename T>
  std::vector<T> effects() const {
    std::vector<T> found;
    for (const auto& effect : out)
      if (const T* e = std::get_if<T>(&effect)) found.push_back(*e);
    return found;
  }
  template <typename T>
  T only() const {
    auto found = effects<T>();
    EXPECT_EQ(found.size(), 1u) << "effects of this type in the last step";
    return found.empty() ? T{} : found.front();
  }
  template <typename T>
  size_t count() const {
    return effects<T>().size();
  }
  uint32_t reply_code(OpId op) const {
    for (const auto& reply : effects<Reply>())
      if (reply.op == op) return reply.status.code();
    ADD_FAILURE() << "no reply to " << op << " in the last step";
    return 0xffffffff;
  }
  bool replied(OpId op) const {
    for (const auto& reply : effects<Reply>())
      if (reply.op == op) return true;
    return false;
  }

  Replica replica;
  int64_t now_ns = 1'000'000'000;
  OpId next_op = 1;
  ChainVersion chain_version = 0;
  TargetId predecessor = 0;
  std::vector<Effect> out;
  std::vector<Effect> all;
};

}  // namespace fs3::craq
