// A storage server: frames become events of CRAQ replicas, their effects become engine and network
// I/O.
//
//   net::RpcServer ──> Service (handlers.cc) ──> Target ──> craq::Replica
//                                                  │ effects
//                              engine::Engine <────┴────> Forwarder ──> successor's server
//
// The server decides nothing about membership: its control half (fs3/storage/daemon.py) gives it
// routing infos and lease ends, and takes reports for the heartbeats. When the control half stalls,
// the lease runs out and nothing is answered any more.
//
// Thread safety: all methods from any thread but the server's own reactor; each waits for that
// reactor. Ownership: the server owns its reactor thread, which ends with it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "auth/capability.h"
#include "base/reactor.h"
#include "base/status.h"
#include "storage/service.h"

namespace fs3::storage {

struct ServerOptions {
  std::string directory;    // of the disk; made when it does not exist
  std::string cluster_id;   // 16 bytes
  uint32_t node_id = 0;     // > 0
  std::string incarnation;  // 16 random bytes, fresh per process start
  std::shared_ptr<const auth::Keyring> keyring;
  std::vector<std::string> addresses;  // to listen on: "tcp://host:port", "unix:///path"
  uint64_t capacity_bytes = 0;         // 0 = what the file system has
  ScrubOptions scrub;
  uint64_t resync_bytes_per_s = 0;  // sent to syncing targets; 0 = no bound
};

class StorageServer {
 public:
  // Opens the disk (recovery included), loads its targets, listens. No target serves before routing
  // and lease came.
  static Result<std::unique_ptr<StorageServer>> create(ServerOptions options);
  // stop(), then ends the reactor.
  ~StorageServer();

  // Where it listens, with the real ports.
  const std::vector<std::string>& addresses() const { return addresses_; }

  // A serialized fs3.proto.RoutingInfo. Targets assigned to this node that do not exist yet are
  // created, unless the chain counts on their data. kBadRequest, kWrongCluster, kShuttingDown.
  Status update_routing(std::string_view routing);
  // The replicas answer until this time on CLOCK_BOOTTIME; never moves back. REQUIRES: the routing
  // info named by the acknowledged heartbeat was applied before. A process that slept through its
  // removal would otherwise answer from an old view with a fresh lease.
  void renew_lease(int64_t until_ns);

  // For the next heartbeat, ordered by target id; empty after stop().
  std::vector<TargetReport> target_reports() const;
  // Servers of common chains that have not answered for a second or more, for the next heartbeat.
  std::vector<Silence> silences() const;
  engine::Space space() const;
  ServiceStatistics statistics() const;
  // Readable (an eventfd: read 8 bytes to clear) when a heartbeat is due at once or warnings wait.
  int notify_fd() const { return notify_fd_; }
  // Each once, oldest first.
  std::vector<std::string> take_warnings() { return warnings_.take(); }

  // Ends all calls and closes the disk. Idempotent.
  void stop();

 private:
  StorageServer();
  Status start(ServerOptions options);
  void notify();
  template <typename T>
  T on_reactor(Function<T()> function) const;

  int notify_fd_ = -1;
  WarningLog warnings_;
  std::unique_ptr<ReactorThread> thread_;
  std::unique_ptr<Service> service_;  // touched on the reactor's thread only
  std::vector<std::string> addresses_;
};

}  // namespace fs3::storage
