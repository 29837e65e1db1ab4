// Routing as the client sees it: an immutable snapshot that requests read without a lock held, and
// the one place that replaces it.
//
// Newer versions come in two ways: pushed (update) and asked for (refresh, when a server refused a
// request because the client's chain version is not its own). Thread safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/function.h"
#include "base/ids.h"
#include "base/status.h"

namespace fs3::proto {
class Layout;
}

namespace fs3::client {

class Core;
class Lane;

struct Replica {
  TargetId target = 0;
  uint32_t node = 0;
};

struct ChainRoute {
  ChainVersion version = 0;
  std::vector<Replica> serving;  // head first
};

// Immutable once published.
struct RoutingSnapshot {
  uint64_t version = 0;
  std::string serialized;
  std::unordered_map<ChainId, ChainRoute> chains;
  std::unordered_map<uint32_t, std::vector<std::string>> nodes;  // addresses, best first
  std::map<std::pair<uint32_t, uint32_t>, std::vector<ChainId>> tables;
  std::vector<std::string> meta_addresses;       // of services that are alive
  std::vector<std::string> lost_meta_addresses;  // of those that the manager declared dead

  const ChainRoute* chain(ChainId id) const;
  // kBadRequest that names the field.
  static Result<std::shared_ptr<const RoutingSnapshot>> parse(std::string_view serialized);
};

// The address to use for attempt number `attempt` of a call: a Unix socket only while its file is
// there, so a client on another host goes on to the next one. Empty when there is none.
std::string choose_address(const std::vector<std::string>& addresses, unsigned attempt);

// Where the chunks of one file live. Immutable but for the list of chains, which is looked up once:
// a table (id, version) never changes.
class Placement {
 public:
  // kBadRequest when chunk_size or stripe are out of range.
  static Result<std::shared_ptr<Placement>> create(const proto::Layout& layout);
  uint32_t chunk_size() const { return chunk_size_; }
  uint32_t stripe() const { return stripe_; }
  // None while `routing` does not know the table.
  std::optional<ChainId> chain_of(uint64_t chunk_index, const RoutingSnapshot& routing);

 private:
  Placement(const proto::Layout& layout);
  const uint32_t table_;
  const uint32_t table_version_;
  const uint32_t chunk_size_;
  const uint32_t stripe_;
  const uint64_t seed_;
  std::mutex mutex_;
  std::vector<ChainId> chains_;  // entry i: the chain of chunks with index % stripe == i
};

class Routing {
 public:
  // An empty snapshot (version 0) before the first update.
  std::shared_ptr<const RoutingSnapshot> snapshot() const;
  // Older and equal versions are ignored. kBadRequest, kWrongCluster.
  Status update(std::string_view serialized, const std::string& cluster_id);
  // Asks the metadata service for a newer one and then calls `done` on `lane`, also when nothing
  // newer is known or nobody answers. One question at a time serves everybody who asks meanwhile.
  void refresh(std::shared_ptr<Core> core, Lane& lane, Function<void()> done);

 private:
  void wake();
  mutable std::mutex mutex_;
  std::shared_ptr<const RoutingSnapshot> snapshot_ = std::make_shared<RoutingSnapshot>();
  bool asking_ = false;
  std::vector<std::pair<Lane*, Function<void()>>> waiting_;
};

}  // namespace fs3::client
