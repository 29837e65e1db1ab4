// Two replicas of one chain under an arbitrary but valid sequence of events: client updates and
// their retries, reads, messages delivered late, twice or never, disks that work when they like,
// deaths, leases that run out, resync. Then everything heals, and it has to hold: the replicas
// become equal, every acknowledged update is in the history once, no read was older than what was
// acknowledged before it. Input: one byte per event and its choices.
#include <array>
#include <map>
#include <memory>
#include <set>

#include "fuzz.h"
#include "replica_chain.h"

namespace fs3::fuzz {
namespace {

constexpr uint32_t kChunkBytes = 1u << 16;
constexpr size_t kEventsMax = 300;
constexpr int kHealRounds = 600;  // of 100 ms

// One client channel: writes one chunk, one update at a time, repeats what was not answered.
struct Channel {
  ClientUpdate last;
  bool waiting = false;
  bool unknown = false;
};

class World : Chain {
 public:
  explicit World(std::string_view input) : in_(input) {
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

  // ---- clients

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

  static ChunkId chunk_of(size_t choice) { return {7, choice % 2}; }

  Input in_;
  std::array<Channel, 4> channels_;
  std::map<ChunkId, std::set<UpdateIdentity>> acknowledged_;
  std::set<ChunkId> removed_;  // a removal was tried: their histories are not followed
};

}  // namespace

const size_t kSealedFrom = kNotSealed;

bool accepts(std::string_view input) {
  World(input).run();
  return true;
}

}  // namespace fs3::fuzz
