// What this node needs of the routing info: the chain view of each of its targets and the addresses
// of its peers. A plain value, made once per routing version.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "craq/replica.h"

namespace fs3::storage {

// A target that the routing info places on this node, and what its replica must know.
struct Assignment {
  TargetId target = 0;
  craq::ChainView view;
};

struct Routing {
  uint64_t version = 0;
  std::string cluster_id;  // 16 bytes
  std::vector<Assignment> own;
  std::map<uint32_t, std::vector<std::string>> addresses;  // of storage nodes; best first
  std::set<uint32_t> partners;  // other nodes with a target in a chain of ours

  // From a serialized fs3.proto.RoutingInfo. kBadRequest names the field that is wrong: a target
  // twice, a target id or chain version of 0.
  static Result<Routing> parse(std::string_view bytes, uint32_t node_id);
};

}  // namespace fs3::storage
