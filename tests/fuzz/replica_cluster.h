// Two replicas of one chain as processes: their disks, the messages between them, and what the
// effects of each step do. Nothing happens here by itself: who owns the cluster says when a disk
// works, which message arrives or is lost, who dies and when the clock goes on.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "fuzz.h"
#include "replica_disk.h"

namespace fs3::fuzz {

using namespace craq;
constexpr int64_t kMs = 1'000'000;
constexpr size_t kMessagesMax = 64;

// What went to a replica and has to be answered: by whom it was asked, and what the answer does.
struct Open {
  std::function<void(const Reply&)> answer;
  std::function<void()> seen;  // of a read: notes what the disk showed
  uint32_t content = 0;        // whose bytes came with it
};

struct Node {
  Node(TargetId id, History& history) : target(id), disk(history) {}
  const TargetId target;
  ReplicaDisk disk;
  std::unique_ptr<Replica> replica;  // null: the process is dead
  uint64_t life = 0;
  std::map<OpId, Open> open;
  int64_t lease_until_ns = 0;
  PublicState state = PublicState::kServing;  // as the manager has it
  bool alive() const { return replica != nullptr; }
  ChainVersion version() const { return alive() ? replica->chain().version : 0; }
};

class Cluster {
 protected:
  struct Message {
    std::function<void()> arrive;
    std::function<void()> lost;
  };
  using Outcome = std::function<Event(const Status&, const Reply&, Node&)>;

  // ---- what can happen to a node

  void work(Node& node) {
    if (!node.alive() || node.disk.idle()) return;
    if (auto outcome = node.disk.work()) step(node, *outcome);
  }

  void deliver(uint8_t choice) {
    if (messages_.empty()) return;
    size_t at = choice % messages_.size();
    auto message = messages_[at];
    if (choice < 240) messages_.erase(messages_.begin() + static_cast<ptrdiff_t>(at));
    message.arrive();
  }

  void lose(uint8_t choice) {
    if (messages_.empty()) return;
    size_t at = choice % messages_.size();
    auto message = messages_[at];
    messages_.erase(messages_.begin() + static_cast<ptrdiff_t>(at));
    message.lost ? message.lost() : message.arrive();
  }

  void tick(Node& node, uint8_t choice) {
    now_ns_ += (choice % 8) * 50 * kMs;
    if (node.alive()) step(node, Tick{});
  }

  void crash(Node& node, uint8_t landing) {
    if (!node.alive()) return;
    node.replica.reset();
    ++node.life;
    node.open.clear();
    node.disk.crash(landing % 4);
  }

  // ---- processes

  void start(Node& node) {
    node.replica = std::make_unique<Replica>(node.target);
    node.lease_until_ns = 0;
    for (const auto& [id, chunk] : node.disk.chunks()) step(node, load(id, chunk, node.disk));
    for (const auto& row : node.disk.rows()) step(node, row);
  }

  static LoadChunk load(ChunkId id, const Chunk& chunk, const ReplicaDisk& disk) {
    LoadChunk e;
    e.chunk = id;
    if (chunk.committed) {
      e.committed = chunk.committed->position.second;
      e.committed_chain = chunk.committed->position.first;
      e.length = disk.length(chunk.committed->content);
      e.checksum = chunk.committed->content;
    }
    if (chunk.pending) {
      bool removal = chunk.pending->kind == UpdateKind::kRemove;
      e.pending = chunk.pending->position.second;
      e.pending_chain = chunk.pending->position.first;
      e.pending_kind = chunk.pending->kind;
      e.pending_length = removal ? 0 : disk.length(chunk.pending->content);
      e.pending_checksum = removal ? 0 : chunk.pending->content;
      e.pending_identity = chunk.pending->identity;
    }
    return e;
  }

  void feed(Node& node, OpId op, Open open, const Event& event) {
    node.open[op] = std::move(open);
    step(node, event);
  }

  // Effects may feed events; those wait until all effects of this step began.
  void step(Node& node, const Event& event) {
    waiting_.push_back({&node, node.life, event});
    if (stepping_) return;
    stepping_ = true;
    while (!waiting_.empty()) {
      auto next = std::move(waiting_.front());
      waiting_.pop_front();
      if (!next.node->alive() || next.node->life != next.life) continue;
      std::vector<Effect> effects;
      next.node->replica->step(now_ns_, next.event, effects);
      for (const Effect& effect : effects) {
        std::visit([&](const auto& e) { execute(*next.node, e); }, effect);
      }
    }
    stepping_ = false;
  }

  // ---- messages

  void post(Message message) {
    messages_.push_back(std::move(message));
    if (messages_.size() > kMessagesMax) lose(0);
  }

  void later(Node& node, const Event& event) {
    post({[this, &node, life = node.life, event] {
            if (node.alive() && node.life == life) step(node, event);
          },
          {}});
  }

  // A request to the peer, and its answer on the way back; either may be late, doubled or lost.
  template <typename E>
  void ask(Node& from, uint32_t content, E event, const Outcome& outcome) {
    Node& to = peer(from);
    uint64_t life = from.life;
    auto lost = [this, &from, &to, life, outcome] {
      if (!from.alive() || from.life != life) return;
      step(from, outcome(Status(kConnectionLost, "fuzz", "lost"), Reply{}, to));
    };
    auto answer = [this, &from, &to, life, outcome, lost](const Reply& reply) {
      // A page is what the disk holds when the answer is made.
      Event answered = outcome(reply.status, reply, to);
      post({[this, &from, life, answered] {
              if (from.alive() && from.life == life) step(from, answered);
            },
            lost});
    };
    auto arrive = [this, &to, event, content, answer, lost]() mutable {
      if (!to.alive()) return lost();
      event.op = next_op_++;
      feed(to, event.op, {answer, {}, content}, event);
    };
    post({arrive, lost});
  }

  size_t index(const Node& node) const { return node.target - 1; }
  Node& peer(const Node& node) { return nodes_[1 - index(node)]; }

  History history_;
  std::array<Node, 2> nodes_{{{1, history_}, {2, history_}}};
  std::vector<Message> messages_;
  int64_t now_ns_ = 1'000 * kMs;
  OpId next_op_ = 1;

 private:
  // ---- effects

  void execute(Node& node, const Stage& e) {
    uint32_t content = node.open.contains(e.op) ? node.open[e.op].content : 0;
    node.disk.ask({e, content});
  }
  void execute(Node& node, const Commit& e) { node.disk.ask({e}); }
  void execute(Node& node, const Discard& e) { node.disk.ask({e}); }
  void execute(Node& node, const PutDedup& e) { node.disk.ask({e}); }
  void execute(Node&, const SetLocal&) {}
  void execute(Node&, const Fetch&) { FS3_CHECK(false); }  // nothing rots on these disks

  void execute(Node& node, const StartRead& e) {
    FS3_CHECK(node.open.contains(e.op));
    node.open[e.op].seen();
    const Chunk* chunk = node.disk.chunk(e.chunk);
    ChunkVersion version = chunk && chunk->committed ? chunk->committed->position.second : 0;
    // The bytes were read; the clock goes on before that is known.
    later(node, ReadDone{e.op, {}, version});
  }

  void execute(Node& node, const Reply& e) {
    auto found = node.open.find(e.op);
    FS3_CHECK(found != node.open.end());  // answered twice, or never asked
    FS3_CHECK(e.status.code() != kChecksumMismatch);
    Open open = std::move(found->second);
    node.open.erase(found);
    open.answer(e);
  }

  void execute(Node& node, const Forward& e) {
    uint32_t content = 0;
    if (e.bytes == Forward::Bytes::kPending || e.bytes == Forward::Bytes::kCommitted) {
      const Chunk* chunk = node.disk.chunk(e.chunk);
      bool pending = e.bytes == Forward::Bytes::kPending;
      const std::optional<Version> none;
      const auto& version = chunk == nullptr ? none : pending ? chunk->pending : chunk->committed;
      if (!version || version->position != Position{e.update_chain, e.version}) {
        return step(node, ForwardDone{e.op, Status(kBusy, "fuzz", "changed"), 0});
      }
      content = version->content;
    }
    Forwarded event;
    event.from = node.target;
    event.chunk = e.chunk;
    event.kind = e.kind;
    event.version = e.version;
    event.offset = e.offset;
    event.length = e.length;
    event.chunk_size = e.chunk_size;
    event.checksum = e.checksum;
    event.chain_version = e.chain_version;
    event.update_chain = e.update_chain;
    event.identity = e.identity;
    event.resync = e.resync;
    ask(node, content, event, [op = e.op](const Status& status, const Reply& reply, Node&) {
      return Event(ForwardDone{op, status, reply.checksum});
    });
  }

  void execute(Node& node, const AskPeerChunks& e) {
    SyncStart event{0, node.target, e.chain_version, e.dedup};
    auto done = [e](const Status& status, const Reply&, Node& successor) {
      PeerChunks page{e.op, status, {}, false};
      if (status.ok()) fill_page(successor.disk, e.after, page);
      return Event(page);
    };
    ask(node, 0, event, done);
  }

  void execute(Node& node, const TellPeerDone& e) {
    SyncDone event{0, node.target, e.chain_version};
    ask(node, 0, event, [op = e.op](const Status& status, const Reply&, Node&) {
      return Event(PeerDone{op, status});
    });
  }

  static void fill_page(const ReplicaDisk& disk, const std::optional<ChunkId>& after,
                        PeerChunks& page) {
    constexpr size_t kPage = 1;
    page.end = true;
    for (const auto& [id, chunk] : disk.chunks()) {
      if (after && id <= *after) continue;
      if (page.chunks.size() == kPage) {
        page.end = false;
        return;
      }
      PeerChunk listed{id, 0, 0, 0, 0, chunk.pending.has_value()};
      if (chunk.committed) {
        listed.version = chunk.committed->position.second;
        listed.chain_version = chunk.committed->position.first;
        listed.length = disk.length(chunk.committed->content);
        listed.checksum = chunk.committed->content;
      }
      page.chunks.push_back(listed);
    }
  }

  struct Waiting {
    Node* node;
    uint64_t life;
    Event event;
  };

  std::deque<Waiting> waiting_;
  bool stepping_ = false;
};

}  // namespace fs3::fuzz
