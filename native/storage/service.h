// The part of a storage server that lives on one reactor: its engine, its targets, the requests for
// them. StorageServer (server.h) is the thread-safe face.
//
// Thread safety: constructed, used and destroyed on the reactor's thread. A server with several
// reactors has one Service for each, with its own directory; nothing here is shared between them.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "auth/capability.h"
#include "base/reactor.h"
#include "engine/engine.h"
#include "net/rpc.h"
#include "storage/assembler.h"
#include "storage/forwarder.h"
#include "storage/metrics.h"
#include "storage/neighbours.h"
#include "storage/routing.h"
#include "storage/scrubber.h"
#include "storage/target.h"
#include "storage/warnings.h"

namespace fs3::storage {

struct ServiceOptions {
  net::Identity self;
  std::shared_ptr<const auth::Keyring> keyring;
  std::vector<std::string> addresses;  // "tcp://host:port", "unix:///path"
  ScrubOptions scrub;
  uint64_t resync_bytes_per_s = 0;  // that all targets together send to syncing ones; 0: no bound
};

struct ServiceStatistics {
  Metrics metrics;
  engine::Statistics engine;
  engine::Space space;
  net::RpcServer::Statistics network{};
  std::vector<std::pair<TargetId, craq::ReplicaStatistics>> targets;
  ScrubStatistics scrub;
  double scrub_age_s = 0;  // since the last pass ended; 0 before the first
};

class Service {
 public:
  // `engine` was opened on `reactor`. `heartbeat_due` and `warnings` outlive the service.
  Service(Reactor& reactor, ServiceOptions options, std::unique_ptr<engine::Engine> engine,
          Function<void()> heartbeat_due, WarningLog& warnings);
  ~Service();

  // Loads the targets of the disk, then listens. Errors name the address.
  Status start();
  const std::vector<std::string>& addresses() const { return addresses_; }

  // kBadRequest, kWrongCluster; older versions than the applied one are ignored.
  Status update_routing(std::string_view routing);
  void renew_lease(int64_t until_ns);
  std::vector<TargetReport> reports() const;  // ordered by target id
  // Servers of common chains that do not answer; by node id.
  std::vector<Silence> silences() const { return neighbours_.silences(now_ns()); }
  engine::Space space() const { return engine_->space(); }
  ServiceStatistics statistics() const;

 private:
  void handle(net::ServerCallPtr call);
  void handle_read(net::ServerCallPtr call);
  void handle_update(net::ServerCallPtr call);
  void handle_forward(net::ServerCallPtr call);
  void handle_sync_start(net::ServerCallPtr call);
  void handle_sync_done(net::ServerCallPtr call);
  void handle_fetch(net::ServerCallPtr call);
  void handle_query_last(net::ServerCallPtr call);
  void handle_query_chunks(net::ServerCallPtr call);
  void handle_dump(net::ServerCallPtr call);
  void handle_read_raw(net::ServerCallPtr call);
  void handle_space(net::ServerCallPtr call);

  void watch_partners(const Routing& routing);

  void refuse(net::ServerCallPtr call, Status status);
  Status allow(const net::ServerCall& call, uint8_t rights, uint64_t inode);
  // Ok when the update's identity belongs to the caller: a client must not speak for another.
  Status own_identity(const net::ServerCall& call, const UpdateIdentity& identity) const;
  Result<Target*> find(TargetId id) const;
  Result<Target*> find(const Destination& to) const;
  // Pulls the whole source, then goes on with it, or refuses.
  void with_source(net::ServerCallPtr call, Function<void(net::ServerCallPtr, Buffer)> next);

  // The target of an assignment, created when this disk may begin it; null when it may not.
  Target* adopt(const Assignment& assignment);
  Target& add_target(TargetId id, ChainId chain);
  void tick();
  void grant_resync();
  void tell_space();
  double scrub_age_s() const;
  void warn(std::string text);

  Reactor& reactor_;
  const ServiceOptions options_;
  const std::string where_;  // "storage-2"
  std::unique_ptr<engine::Engine> engine_;
  WarningLog& warnings_;
  Metrics metrics_;
  Forwarder forwarder_;
  Neighbours neighbours_;
  auth::Verifier verifier_;
  Assembler assembler_;
  Target::World world_;
  std::map<TargetId, std::shared_ptr<Target>> targets_;
  Scrubber scrubber_;
  std::unique_ptr<net::RpcServer> server_;
  std::vector<std::string> addresses_;
  uint64_t routing_version_ = 0;
  int64_t lease_until_ns_ = 0;
  int64_t tell_space_next_ns_ = 0;
  int64_t granted_ns_ = 0;  // when resync was granted bytes last
  uint64_t bad_frames_seen_ = 0;
  Reactor::TimerId timer_ = 0;
};

}  // namespace fs3::storage
