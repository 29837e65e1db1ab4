// Two replicas of one chain under an arbitrary but valid sequence of events: client updates and
// their retries, reads, messages delivered late, twice or never, disks that work when they like,
// deaths, leases that run out, resync. Then everything heals, and it has to hold: the replicas
// become equal, every acknowledged update is in the history once, no read was older than what was
// acknowledged before it. Input: one byte per event and its choices.
#include <array>
#include <functional>
#include <memory>
#include <set>

#include "fuzz.h"
#include "replica_disk.h"

namespace fs3::fuzz {
namespace {

using namespace craq;
constexpr int64_t kMs = 1'000'000;
constexpr int64_t kLeaseNs = 3200 * kMs;
constexpr uint32_t kChunkBytes = 1u << 16;
constexpr size_t kEventsMax = 300;
constexpr size_t kMessagesMax = 64;
constexpr int kHealRounds = 600;  // of 100 ms

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

// One client channel: writes one chunk, one update at a time, repeats what was not answered.
struct Channel {
  ClientUpdate last;
  bool waiting = false;
  bool unknown = false;
};

class World {
 public:
  explicit World(std::string_view input) : in_(input), nodes_{{{1, history_}, {2, history_}}} {
    for (Node& node : nodes_) start(node);
    change_chain();
    for (Node& node : nodes_) learn(node);
  }

  void run() {
    for (size_t i = 0; i < kEventsMax && !in_.empty(); ++i) event(in_.byte());
    heal();
    check_end();
  }

 private:
  // ---- what can happen

  void event(uint8_t what) {
    Node& node = nodes_[what & 1];
    switch ((what >> 1) % 14) {
      case 0:
      case 1:
        return update(in_.byte());
      case 2:
        return retry(in_.byte());
      case 3:
        return read(node, in_.byte());
      case 4:
      case 5:
        return work(node);
      case 6:
      case 7:
        return deliver(in_.byte());
      case 8:
        return lose(in_.byte());
      case 9:
        return tick(node, in_.byte());
      case 10:
        return learn(node);
      case 11:
        return what & 0x80 ? crash(node, in_.byte()) : renew(node);
      case 12:
        return what & 0x80 ? expire(node) : renew(node);
      default:
        return manage();
    }
  }

  void update(uint8_t choice) {
    Channel& channel = channels_[choice % channels_.size()];
    if (channel.waiting) return;
    ClientUpdate& e = channel.last;
    e.chunk = chunk_of(choice % channels_.size());
    uint8_t kind = (choice >> 2) % 8;
    e.kind = kind == 0   ? UpdateKind::kRemove
             : kind == 1 ? UpdateKind::kTruncate
                         : UpdateKind::kWrite;
    e.offset = e.kind == UpdateKind::kWrite ? in_.byte() : 0;
    e.length = e.kind == UpdateKind::kRemove ? 0 : 1u + in_.byte();
    e.chunk_size = kChunkBytes;
    e.checksum = choice;
    e.identity.client_id.fill(static_cast<uint8_t>(1 + choice % channels_.size()));
    e.identity.channel = 1;
    ++e.identity.sequence;
    if (e.kind == UpdateKind::kRemove) removed_.insert(e.chunk);
    send(channel);
  }

  void retry(uint8_t choice) {
    Channel& channel = channels_[choice % channels_.size()];
    // A client repeats what it has no answer to; an attempt may still be under way.
    if (channel.last.identity.sequence == 0 || !(channel.waiting || channel.unknown)) return;
    send(channel);
  }

  void send(Channel& channel) {
    Node* head = this->head();
    channel.waiting = false;
    channel.unknown = true;
    if (head == nullptr) return;
    ClientUpdate e = channel.last;
    e.op = next_op_++;
    e.chain_version = head->version();
    channel.waiting = true;
    auto answer = [this, &channel, e](const Reply& reply) {
      if (e.identity != channel.last.identity) return;
      channel.waiting = false;
      if (!reply.status.ok()) return;
      channel.unknown = false;
      acknowledged_[e.chunk].insert(e.identity);
    };
    feed(*head, e.op, {answer, {}, 0}, e);
  }

  void read(Node& node, uint8_t choice) {
    if (!node.alive()) return;
    Read e{next_op_++, chunk_of(choice), node.version(), false, now_ns_ + 500 * kMs};
    auto before = std::make_shared<std::set<UpdateIdentity>>(acknowledged_[e.chunk]);
    auto content = std::make_shared<uint32_t>(0);
    auto seen = [&node, e, content] {
      const Chunk* chunk = node.disk.chunk(e.chunk);
      *content = chunk != nullptr && chunk->committed ? chunk->committed->content : 0;
    };
    auto answer = [this, &node, e, before, content](const Reply& reply) {
      if (!reply.status.ok()) return;
      FS3_CHECK(now_ns_ < node.lease_until_ns);  // I16
      if (removed_.contains(e.chunk)) return;
      for (const auto& identity : *before)
        FS3_CHECK(history_.count(*content, identity) == 1);  // I3
    };
    feed(node, e.op, {answer, seen, 0}, e);
  }

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

  // A heartbeat: acknowledged only to who knows the newest chain.
  void renew(Node& node) {
    if (!node.alive() || node.version() != version_) return;
    node.lease_until_ns = now_ns_ + kLeaseNs;
    step(node, SetLease{node.lease_until_ns});
  }

  void crash(Node& node, uint8_t landing) {
    if (!node.alive()) return;
    node.replica.reset();
    ++node.life;
    node.open.clear();
    node.disk.crash(landing % 4);
  }

  // The manager does not hear of the node for longer than its lease.
  void expire(Node& node) {
    now_ns_ = std::max(now_ns_, node.lease_until_ns + 1);
    demote(node);
  }

  // ---- the manager

  void demote(Node& node) {
    Node& other = peer(node);
    if (node.state == PublicState::kOffline || node.state == PublicState::kLastsrv) return;
    bool last = node.state == PublicState::kServing && other.state != PublicState::kServing;
    node.state = last ? PublicState::kLastsrv : PublicState::kOffline;
    if (last && other.state == PublicState::kSyncing) other.state = PublicState::kWaiting;
    change_chain();
  }

  // The next step towards two serving replicas, if one is due.
  void manage() {
    for (Node& node : nodes_) {
      if (!node.alive()) {
        demote(node);
        start(node);
        return;
      }
    }
    for (Node& node : nodes_) {
      bool current = node.version() == version_ && node.replica->local() == LocalState::kUptodate;
      bool ready = node.state == PublicState::kSyncing || node.state == PublicState::kLastsrv;
      if (ready && current) {
        if (node.state == PublicState::kSyncing) head_ = 1 - index(node);  // joins as the tail
        if (node.state == PublicState::kLastsrv) head_ = index(node);
        node.state = PublicState::kServing;
        return change_chain();
      }
      bool out = node.state == PublicState::kOffline || node.state == PublicState::kWaiting;
      if (out && peer(node).state == PublicState::kServing) {
        node.state = PublicState::kSyncing;
        head_ = 1 - index(node);
        return change_chain();
      }
    }
  }

  void change_chain() {
    ++version_;
    if (nodes_[head_].state != PublicState::kServing) head_ = 1 - head_;
  }

  // The routing arrives at the node.
  void learn(Node& node) {
    if (!node.alive() || node.version() == version_) return;
    ChainView view;
    view.chain = 5;
    view.version = version_;
    view.self = node.state;
    Node& other = peer(node);
    bool in_line = node.state == PublicState::kServing || node.state == PublicState::kSyncing;
    bool other_in_line =
        other.state == PublicState::kServing || other.state == PublicState::kSyncing;
    if (in_line && other_in_line) {
      Peer neighbour{other.target, static_cast<uint32_t>(other.target),
                     other.state == PublicState::kSyncing};
      (index(node) == head_ ? view.successor : view.predecessor) = neighbour;
    }
    step(node, SetChain{view});
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

  // ---- messages

  struct Message {
    std::function<void()> arrive;
    std::function<void()> lost;
  };
  using Outcome = std::function<Event(const Status&, const Reply&, Node&)>;

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

  // ---- the end

  // No more faults: everybody lives, hears of the chain, and works.
  void heal() {
    for (int round = 0; round < kHealRounds; ++round) {
      if (quiet()) return;
      manage();
      for (Node& node : nodes_) {
        learn(node);
        renew(node);
        while (node.alive() && !node.disk.idle()) work(node);
      }
      while (!messages_.empty()) {
        deliver(0);
        for (Node& node : nodes_) {
          while (node.alive() && !node.disk.idle()) work(node);
        }
      }
      now_ns_ += 100 * kMs;
      for (Node& node : nodes_) {
        if (node.alive()) step(node, Tick{});
      }
    }
    FS3_CHECK(!"the chain does not become whole again");  // I27
  }

  bool quiet() {
    if (!messages_.empty()) return false;
    for (Node& node : nodes_) {
      if (!node.alive() || node.state != PublicState::kServing || node.version() != version_ ||
          !node.disk.idle() || !node.open.empty() || node.replica->statistics().pending > 0) {
        return false;
      }
    }
    return true;
  }

  void check_end() {
    const auto& first = nodes_[0].disk.chunks();
    const auto& second = nodes_[1].disk.chunks();
    FS3_CHECK(first.size() == second.size());  // I8
    for (const auto& [id, chunk] : first) {
      auto other = second.find(id);
      FS3_CHECK(other != second.end() && chunk.committed && other->second.committed);
      FS3_CHECK(!chunk.pending && !other->second.pending);
      FS3_CHECK(chunk.committed->position == other->second.committed->position);
      FS3_CHECK(chunk.committed->content == other->second.committed->content);
    }
    for (const auto& [id, identities] : acknowledged_) {
      if (removed_.contains(id)) continue;
      auto found = first.find(id);
      for (const auto& identity : identities) {
        FS3_CHECK(found != first.end());
        FS3_CHECK(history_.count(found->second.committed->content, identity) == 1);  // I1, I10
      }
    }
  }

  // ---- small things

  static ChunkId chunk_of(size_t choice) { return {7, choice % 2}; }
  size_t index(const Node& node) const { return node.target - 1; }
  Node& peer(const Node& node) { return nodes_[1 - index(node)]; }
  Node* head() {
    Node& node = nodes_[head_];
    return node.alive() && node.state == PublicState::kServing ? &node : nullptr;
  }

  struct Waiting {
    Node* node;
    uint64_t life;
    Event event;
  };

  Input in_;
  History history_;
  std::array<Node, 2> nodes_;
  std::array<Channel, 4> channels_;
  std::map<ChunkId, std::set<UpdateIdentity>> acknowledged_;
  std::set<ChunkId> removed_;  // a removal was tried: their histories are not followed
  std::vector<Message> messages_;
  std::deque<Waiting> waiting_;
  bool stepping_ = false;
  size_t head_ = 0;
  ChainVersion version_ = 0;
  int64_t now_ns_ = 1'000 * kMs;
  OpId next_op_ = 1;
};

}  // namespace

const size_t kSealedFrom = kNotSealed;

bool accepts(std::string_view input) {
  World(input).run();
  return true;
}

}  // namespace fs3::fuzz
