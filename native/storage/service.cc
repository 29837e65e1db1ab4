#include "storage/service.h"

#include <algorithm>

namespace fs3::storage {
namespace {

constexpr int64_t kTickNs = 50'000'000;
constexpr int64_t kTellSpaceNs = 60'000'000'000;

bool holds_acknowledged_writes(craq::PublicState state) {
  return state == craq::PublicState::kServing || state == craq::PublicState::kLastsrv;
}

}  // namespace

Service::Service(Reactor& reactor, ServiceOptions options, std::unique_ptr<engine::Engine> engine,
                 Function<void()> heartbeat_due, WarningLog& warnings)
    : reactor_(reactor),
      options_(std::move(options)),
      where_("storage-" + std::to_string(options_.self.node_id)),
      engine_(std::move(engine)),
      warnings_(warnings),
      forwarder_(reactor, options_.self, options_.keyring),
      neighbours_(reactor, options_.self),
      verifier_(options_.keyring, options_.self.cluster_id),
      world_{*engine_,
             forwarder_,
             metrics_,
             std::move(heartbeat_due),
             [this](std::string text) { warn(std::move(text)); },
             where_,
             Admission(*engine_)},
      scrubber_(*engine_, options_.scrub, [this](TargetId id, ChunkId chunk, Status status) {
        auto it = targets_.find(id);
        if (it != targets_.end()) it->second->note_damage(chunk, status);
      }) {}

Service::~Service() {
  reactor_.cancel(timer_);
  server_.reset();   // no further request
  targets_.clear();  // outcomes on their way find no target
}

Status Service::start() {
  for (const auto& info : engine_->targets()) add_target(info.target, info.chain_id);
  auto server = net::RpcServer::create(
      reactor_, options_.self, [this](net::ServerCallPtr call) { handle(std::move(call)); });
  if (!server.ok()) return server.status();
  server_ = std::move(*server);
  for (const auto& address : options_.addresses) {
    auto real = server_->listen(address);
    if (!real.ok()) return real.status();
    addresses_.push_back(*real);
  }
  timer_ = reactor_.after(kTickNs, [this] { tick(); });
  return {};
}

Target& Service::add_target(TargetId id, ChainId chain) {
  auto target = std::make_shared<Target>(world_, id, chain);
  targets_[id] = target;
  target->load();
  if (lease_until_ns_ > 0) target->set_lease(lease_until_ns_);
  return *target;
}

Status Service::update_routing(std::string_view bytes) {
  auto routing = Routing::parse(bytes, options_.self.node_id);
  if (!routing.ok()) return routing.status();
  if (routing->cluster_id != options_.self.cluster_id)
    return Status(kWrongCluster, where_ + "/routing", "the routing info is of another cluster");
  if (routing->version < routing_version_) return {};
  routing_version_ = routing->version;
  forwarder_.set_addresses(routing->addresses);
  watch_partners(*routing);
  for (const auto& assignment : routing->own)
    if (Target* target = adopt(assignment)) target->set_chain(assignment.view);
  world_.local_changed();  // mgmtd waits to hear which chain versions were applied
  return {};
}

void Service::watch_partners(const Routing& routing) {
  std::map<uint32_t, std::vector<std::string>> partners;
  for (uint32_t node_id : routing.partners)
    if (auto it = routing.addresses.find(node_id); it != routing.addresses.end())
      partners.insert(*it);
  neighbours_.watch(partners);
}

// A target that the chain counts on for acknowledged writes must already be on this disk: an empty
// one in its place (a replaced disk, a wrong directory) would serve holes. It is not created, and
// so not reported; mgmtd then takes it out of service, and in that state it may begin anew.
Target* Service::adopt(const Assignment& assignment) {
  auto it = targets_.find(assignment.target);
  std::string name = "target " + std::to_string(assignment.target);
  if (it != targets_.end()) {
    if (it->second->chain_id() == assignment.view.chain) return it->second.get();
    warn(name + " on this disk belongs to chain " + std::to_string(it->second->chain_id()) +
         ", the routing info says " + std::to_string(assignment.view.chain) + "; it stays unused");
    return nullptr;
  }
  if (holds_acknowledged_writes(assignment.view.self)) {
    warn(name + " should hold data of chain " + std::to_string(assignment.view.chain) +
         " but is not on this disk; was the disk replaced?");
    return nullptr;
  }
  if (Status s = engine_->create_target(assignment.target, assignment.view.chain); !s.ok()) {
    warn(name + " cannot be created: " + s.to_string());
    return nullptr;
  }
  return &add_target(assignment.target, assignment.view.chain);
}

void Service::renew_lease(int64_t until_ns) {
  lease_until_ns_ = std::max(lease_until_ns_, until_ns);
  for (auto& [id, target] : targets_) target->set_lease(lease_until_ns_);
}

std::vector<TargetReport> Service::reports() const {
  std::vector<TargetReport> out;
  out.reserve(targets_.size());
  for (const auto& [id, target] : targets_) {
    out.push_back(target->report());
    out.back().scrub_passes = scrubber_.statistics().passes;
    out.back().scrub_age_s = scrub_age_s();
  }
  return out;
}

double Service::scrub_age_s() const {
  int64_t ended_ns = scrubber_.statistics().pass_ended_ns;
  return ended_ns == 0 ? 0 : static_cast<double>(now_ns() - ended_ns) * 1e-9;
}

ServiceStatistics Service::statistics() const {
  ServiceStatistics out;
  out.metrics = metrics_;
  out.engine = engine_->statistics();
  out.space = engine_->space();
  out.network = server_->statistics();
  for (const auto& [id, target] : targets_) out.targets.emplace_back(id, target->statistics());
  out.scrub = scrubber_.statistics();
  out.scrub_age_s = scrub_age_s();
  return out;
}

void Service::tick() {
  timer_ = reactor_.after(kTickNs, [this] { tick(); });
  grant_resync();
  for (auto& [id, target] : targets_) target->tick();
  scrubber_.tick(now_ns());
  neighbours_.tick(now_ns());
  assembler_.expire(now_ns());
  world_.admission.tick();
  tell_space();
  uint64_t bad_frames = server_->statistics().bad_frames;
  if (bad_frames != bad_frames_seen_)
    warn(std::to_string(bad_frames - bad_frames_seen_) +
         " bad frames arrived; their connections were closed");
  bad_frames_seen_ = bad_frames;
}

// Those who resync share; the others may begin with what the next tick brings.
void Service::grant_resync() {
  if (options_.resync_bytes_per_s == 0) return;
  int64_t now = now_ns();
  int64_t passed_ns = granted_ns_ == 0 ? kTickNs : std::min(now - granted_ns_, 4 * kTickNs);
  granted_ns_ = now;
  double bytes =
      static_cast<double>(options_.resync_bytes_per_s) * 1e-9 * static_cast<double>(passed_ns);
  uint64_t sharers = 0;
  for (const auto& [id, target] : targets_) sharers += target->resyncing();
  auto share = static_cast<uint64_t>(bytes) / std::max<uint64_t>(1, sharers);
  for (auto& [id, target] : targets_) target->grant_resync(share);
}

// Once in a while: whoever fills a disk tries again and again.
void Service::tell_space() {
  if (!world_.admission.refused_lately() || now_ns() < tell_space_next_ns_) return;
  tell_space_next_ns_ = now_ns() + kTellSpaceNs;
  auto space = engine_->space();
  warn("the disk is full, writes are refused: " + std::to_string(space.free_bytes) + " of " +
       std::to_string(space.capacity_bytes) + " bytes are free; remove files or add disks");
}

void Service::warn(std::string text) { warnings_.add(now_ns(), where_ + ": " + std::move(text)); }

}  // namespace fs3::storage
