#include "storage/routing.h"

#include <optional>
#include <set>

#include "common.pb.h"

namespace fs3::storage {
namespace {

Status bad(const std::string& detail) { return Status(kBadRequest, "storage/routing", detail); }

bool takes_updates(proto::TargetState state) {
  return state == proto::SERVING || state == proto::SYNCING;
}

craq::Peer peer_of(const proto::ChainTarget& target) {
  return {target.target_id(), target.node_id(), target.state() == proto::SYNCING};
}

// Updates flow along the serving targets in their order, then to the first syncing one; nobody
// forwards beyond it.
craq::ChainView view_of(const proto::Chain& chain, const proto::ChainTarget& self) {
  craq::ChainView view{chain.id(), chain.version(), static_cast<craq::PublicState>(self.state()),
                       std::nullopt, std::nullopt};
  if (!takes_updates(self.state())) return view;
  std::vector<const proto::ChainTarget*> line;
  for (auto wanted : {proto::SERVING, proto::SYNCING})
    for (const auto& target : chain.targets()) {
      if (target.state() != wanted) continue;
      line.push_back(&target);
      if (wanted == proto::SYNCING) break;
    }
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i]->target_id() != self.target_id()) continue;
    if (i > 0) view.predecessor = peer_of(*line[i - 1]);
    if (i + 1 < line.size()) view.successor = peer_of(*line[i + 1]);
  }
  return view;
}

Status check_chain(const proto::Chain& chain, std::set<TargetId>& seen) {
  std::string where = "chains[" + std::to_string(chain.id()) + "]";
  if (chain.version() == 0) return bad(where + ".version: is 0");
  for (const auto& target : chain.targets()) {
    if (target.target_id() == 0) return bad(where + ".targets: a target id is 0");
    if (!seen.insert(target.target_id()).second)
      return bad(where + ".targets: target " + std::to_string(target.target_id()) +
                 " is listed twice");
  }
  return {};
}

}  // namespace

Result<Routing> Routing::parse(std::string_view bytes, uint32_t node_id) {
  proto::RoutingInfo info;
  if (!info.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())))
    return bad("body: is not a RoutingInfo");
  Routing out;
  out.version = info.version();
  out.cluster_id = info.cluster_id();
  for (const auto& node : info.nodes())
    if (node.role() == "storage")
      out.addresses[node.id()] = {node.addresses().begin(), node.addresses().end()};
  std::set<TargetId> seen;
  for (const auto& chain : info.chains()) {
    if (Status s = check_chain(chain, seen); !s.ok()) return s;
    bool ours = false;
    for (const auto& target : chain.targets()) {
      if (target.node_id() != node_id) continue;
      ours = true;
      out.own.push_back({target.target_id(), view_of(chain, target)});
    }
    for (const auto& target : chain.targets())
      if (ours && target.node_id() != node_id) out.partners.insert(target.node_id());
  }
  return out;
}

}  // namespace fs3::storage
