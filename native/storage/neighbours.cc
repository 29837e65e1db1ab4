#include "storage/neighbours.h"

#include <utility>

#include "storage.pb.h"

namespace fs3::storage {
namespace {

constexpr int64_t kAskEveryNs = 250'000'000;
constexpr int64_t kAnswerNs = 1'000'000'000;  // an answer that takes longer is none
// Below 3/4 of the shortest lease (2 s), which is where mgmtd begins to care, and above what a busy
// server takes for an answer now and then.
constexpr int64_t kTellNs = 1'000'000'000;

// Made on this side, or by a server that ends; every other status is the neighbour's word.
bool is_silence(const Status& status) {
  uint32_t code = status.code();
  return code == kConnectionLost || code == kTimedOut || code == kShuttingDown;
}

}  // namespace

Neighbours::Neighbours(Reactor& reactor, net::Identity self)
    : reactor_(reactor), self_(std::move(self)) {}

Neighbours::~Neighbours() = default;

void Neighbours::watch(const std::map<uint32_t, std::vector<std::string>>& addresses) {
  std::erase_if(neighbours_, [&](const auto& entry) {
    auto found = addresses.find(entry.first);
    return found == addresses.end() || found->second != entry.second.addresses;
  });
  for (const auto& [node_id, list] : addresses)
    if (node_id != self_.node_id && !list.empty())
      neighbours_.try_emplace(node_id, Neighbour{list, Contact(now_ns()), 0, nullptr, 0, 0});
}

void Neighbours::tick(int64_t now_ns) {
  for (auto& [node_id, neighbour] : neighbours_) {
    neighbour.contact.tick(now_ns);
    if (neighbour.asked == 0 && now_ns >= neighbour.due_ns) ask(node_id, neighbour, now_ns);
  }
}

void Neighbours::ask(uint32_t node_id, Neighbour& neighbour, int64_t now_ns) {
  neighbour.due_ns = now_ns + kAskEveryNs;
  if (!neighbour.channel) {
    const auto& list = neighbour.addresses;
    auto made = net::Channel::create(reactor_, list[neighbour.next++ % list.size()], self_);
    if (!made.ok()) return;  // such an address is nobody's
    neighbour.channel = *made;
  }
  neighbour.asked = ++questions_;
  net::CallSpec spec;
  spec.method = proto::storage::PING;
  spec.deadline_ns = now_ns + kAnswerNs;
  neighbour.channel->call(std::move(spec), [this, alive = std::weak_ptr<char>(alive_), node_id,
                                            question = neighbour.asked](net::Reply reply) {
    if (!alive.expired()) answered(node_id, question, reply.status);
  });
}

void Neighbours::answered(uint32_t node_id, uint64_t question, const Status& status) {
  auto it = neighbours_.find(node_id);
  if (it == neighbours_.end() || it->second.asked != question) return;
  it->second.asked = 0;
  if (is_silence(status))
    it->second.channel.reset();
  else
    it->second.contact.heard(now_ns());
}

std::vector<Silence> Neighbours::silences(int64_t now_ns) const {
  std::vector<Silence> out;
  for (const auto& [node_id, neighbour] : neighbours_) {
    int64_t silent_ns = neighbour.contact.silent_ns(now_ns);
    if (silent_ns >= kTellNs) out.push_back({node_id, static_cast<double>(silent_ns) * 1e-9});
  }
  return out;
}

}  // namespace fs3::storage
