#include "client/routing.h"

#include <unistd.h>

#include <bit>

#include "client/core.h"
#include "client/meta.h"
#include "common.pb.h"
#include "meta.pb.h"
#include "wire/layout.h"

namespace fs3::client {

namespace {

constexpr uint32_t kChunkBytesMin = 64u << 10;
constexpr uint32_t kChunkBytesMax = 64u << 20;
constexpr uint32_t kStripeMax = 65'536;
// Longer than any hiccup of a metadata server, shorter than a data deadline.
constexpr int64_t kRefreshDeadlineNs = 5'000'000'000;

bool usable(const std::string& address) {
  constexpr std::string_view kUnix = "unix://";
  if (!address.starts_with(kUnix)) return true;
  return ::access(address.c_str() + kUnix.size(), F_OK) == 0;
}

}  // namespace

const ChainRoute* RoutingSnapshot::chain(ChainId id) const {
  auto found = chains.find(id);
  return found == chains.end() ? nullptr : &found->second;
}

Result<std::shared_ptr<const RoutingSnapshot>> RoutingSnapshot::parse(std::string_view serialized) {
  proto::RoutingInfo info;
  if (!info.ParseFromArray(serialized.data(), static_cast<int>(serialized.size()))) {
    return Status(kBadRequest, "client/routing", "routing: not an fs3.proto::RoutingInfo");
  }
  auto made = std::make_shared<RoutingSnapshot>();
  made->version = info.version();
  made->serialized = serialized;
  for (const proto::Node& node : info.nodes()) {
    std::vector<std::string> addresses(node.addresses().begin(), node.addresses().end());
    if (node.role() == "meta") {
      auto& known = node.alive() ? made->meta_addresses : made->lost_meta_addresses;
      known.insert(known.end(), addresses.begin(), addresses.end());
    }
    made->nodes.emplace(node.id(), std::move(addresses));
  }
  for (const proto::Chain& chain : info.chains()) {
    ChainRoute& route = made->chains[chain.id()];
    route.version = chain.version();
    for (const proto::ChainTarget& target : chain.targets()) {
      if (target.state() == proto::SERVING)
        route.serving.push_back({target.target_id(), target.node_id()});
    }
  }
  for (const proto::ChainTable& table : info.tables()) {
    made->tables[{table.id(), table.version()}] = {table.chains().begin(), table.chains().end()};
  }
  return std::shared_ptr<const RoutingSnapshot>(std::move(made));
}

std::string choose_address(const std::vector<std::string>& addresses, unsigned attempt) {
  for (size_t i = 0; i < addresses.size(); ++i) {
    const std::string& address = addresses[(attempt + i) % addresses.size()];
    if (usable(address)) return address;
  }
  return {};
}

Placement::Placement(const proto::Layout& layout)
    : table_(layout.chain_table()),
      table_version_(layout.chain_table_version()),
      chunk_size_(layout.chunk_size()),
      stripe_(layout.stripe()),
      seed_(layout.seed()) {}

Result<std::shared_ptr<Placement>> Placement::create(const proto::Layout& layout) {
  uint32_t size = layout.chunk_size();
  if (size < kChunkBytesMin || size > kChunkBytesMax || !std::has_single_bit(size)) {
    return Status(kBadRequest, "client/layout",
                  "chunk_size: must be a power of two, 64 KiB to 64 MiB");
  }
  if (layout.stripe() == 0 || layout.stripe() > kStripeMax) {
    return Status(kBadRequest, "client/layout", "stripe: must be 1 to 65536");
  }
  return std::shared_ptr<Placement>(new Placement(layout));
}

std::optional<ChainId> Placement::chain_of(uint64_t chunk_index, const RoutingSnapshot& routing) {
  std::lock_guard lock(mutex_);
  if (chains_.empty()) {
    auto found = routing.tables.find({table_, table_version_});
    if (found == routing.tables.end() || found->second.size() < stripe_) return std::nullopt;
    const auto& table = found->second;
    auto order = wire::permutation(seed_, static_cast<uint32_t>(table.size()));
    for (uint32_t i = 0; i < stripe_; ++i) chains_.push_back(table[order[i]]);
  }
  return chains_[chunk_index % stripe_];
}

std::shared_ptr<const RoutingSnapshot> Routing::snapshot() const {
  std::lock_guard lock(mutex_);
  return snapshot_;
}

Status Routing::update(std::string_view serialized, const std::string& cluster_id) {
  auto parsed = RoutingSnapshot::parse(serialized);
  if (!parsed.ok()) return parsed.status();
  proto::RoutingInfo info;
  (void)info.ParseFromString((*parsed)->serialized);
  if (!cluster_id.empty() && !info.cluster_id().empty() && info.cluster_id() != cluster_id) {
    return Status(kWrongCluster, "client/routing",
                  "routing of another cluster; check the addresses");
  }
  {
    std::lock_guard lock(mutex_);
    if ((*parsed)->version <= snapshot_->version) return Status();
    snapshot_ = std::move(parsed).value();
  }
  wake();  // who asked for a newer one has it, whichever way it came
  return Status();
}

void Routing::refresh(std::shared_ptr<Core> core, Lane& lane, Function<void()> done) {
  uint64_t known;
  {
    std::lock_guard lock(mutex_);
    waiting_.emplace_back(&lane, std::move(done));
    if (asking_) return;
    asking_ = true;
    known = snapshot_->version;
  }
  core->counters.routing_refreshes.fetch_add(1, std::memory_order_relaxed);
  proto::meta::GetRoutingRequest request;
  request.set_known_version(known);
  auto answered = [core, this](Result<std::string> reply) {
    proto::meta::GetRoutingReply parsed;
    if (reply.ok() && parsed.ParseFromString(*reply) && parsed.has_routing()) {
      // A routing that does not parse or belongs elsewhere leaves the old one in place: the
      // caller's next attempt is refused again and its deadline reports it.
      (void)update(parsed.routing().SerializeAsString(), core->options.cluster_id);
    }
    {
      std::lock_guard lock(mutex_);
      asking_ = false;
    }
    wake();
  };
  send_meta_call(core, lane, proto::meta::GET_ROUTING, request.SerializeAsString(),
                 now_ns() + kRefreshDeadlineNs, std::move(answered));
}

void Routing::wake() {
  std::vector<std::pair<Lane*, Function<void()>>> waiting;
  {
    std::lock_guard lock(mutex_);
    waiting.swap(waiting_);
  }
  for (auto& [lane, done] : waiting) lane->run(std::move(done));
}

}  // namespace fs3::client
