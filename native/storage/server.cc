#include "storage/server.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <future>
#include <utility>

#include "base/check.h"

namespace fs3::storage {
namespace {

Status check(const ServerOptions& options) {
  auto bad = [](std::string_view detail) { return Status(EINVAL, "storage/create", detail); };
  if (options.directory.empty()) return bad("directory: is empty");
  if (options.cluster_id.size() != 16) return bad("cluster_id: needs 16 bytes");
  if (options.incarnation.size() != 16) return bad("incarnation: needs 16 bytes");
  if (options.node_id == 0) return bad("node_id: is 0");
  if (!options.keyring) return bad("keyring: is missing");
  if (options.addresses.empty()) return bad("addresses: at least one is needed");
  return {};
}

}  // namespace

StorageServer::StorageServer() : warnings_([this] { notify(); }) {}

Result<std::unique_ptr<StorageServer>> StorageServer::create(ServerOptions options) {
  if (Status s = check(options); !s.ok()) return s;
  std::unique_ptr<StorageServer> server(new StorageServer);
  server->notify_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (server->notify_fd_ < 0) return Status(errno, "storage/create", "no eventfd");
  auto thread = ReactorThread::create("fs3-storage");
  if (!thread.ok()) return thread.status();
  server->thread_ = std::move(*thread);
  Status status =
      server->on_reactor<Status>([&server, &options] { return server->start(std::move(options)); });
  if (!status.ok()) return status;
  return server;
}

StorageServer::~StorageServer() {
  stop();
  thread_.reset();
  if (notify_fd_ >= 0) close(notify_fd_);
}

// On the reactor's thread.
Status StorageServer::start(ServerOptions options) {
  engine::Options disk;
  disk.directory = options.directory;
  disk.cluster_id = options.cluster_id;
  disk.node_id = options.node_id;
  disk.create = true;
  disk.capacity_bytes = options.capacity_bytes;
  auto engine = engine::Engine::open(thread_->reactor(), std::move(disk));
  if (!engine.ok()) return engine.status();
  ServiceOptions service;
  service.self = {options.cluster_id, options.incarnation, net::Role::kStorage, options.node_id};
  service.keyring = std::move(options.keyring);
  service.addresses = std::move(options.addresses);
  service.scrub = options.scrub;
  service.resync_bytes_per_s = options.resync_bytes_per_s;
  service_ = std::make_unique<Service>(
      thread_->reactor(), std::move(service), std::move(*engine), [this] { notify(); }, warnings_);
  Status status = service_->start();
  if (status.ok())
    addresses_ = service_->addresses();
  else
    service_.reset();
  return status;
}

void StorageServer::notify() {
  uint64_t one = 1;
  // A full counter is readable as well; nothing else can fail here.
  [[maybe_unused]] ssize_t written = write(notify_fd_, &one, sizeof(one));
}

template <typename T>
T StorageServer::on_reactor(Function<T()> function) const {
  FS3_CHECK(!thread_->reactor().on_thread());
  std::promise<T> promise;
  auto future = promise.get_future();
  thread_->reactor().post([&promise, &function] { promise.set_value(function()); });
  return future.get();
}

Status StorageServer::update_routing(std::string_view routing) {
  return on_reactor<Status>([this, routing] {
    if (!service_) return Status(kShuttingDown, "storage/routing", "the server was stopped");
    return service_->update_routing(routing);
  });
}

void StorageServer::renew_lease(int64_t until_ns) {
  on_reactor<bool>([this, until_ns] {
    if (service_) service_->renew_lease(until_ns);
    return true;
  });
}

std::vector<TargetReport> StorageServer::target_reports() const {
  return on_reactor<std::vector<TargetReport>>(
      [this] { return service_ ? service_->reports() : std::vector<TargetReport>(); });
}

std::vector<Silence> StorageServer::silences() const {
  return on_reactor<std::vector<Silence>>(
      [this] { return service_ ? service_->silences() : std::vector<Silence>(); });
}

engine::Space StorageServer::space() const {
  return on_reactor<engine::Space>(
      [this] { return service_ ? service_->space() : engine::Space(); });
}

ServiceStatistics StorageServer::statistics() const {
  return on_reactor<ServiceStatistics>(
      [this] { return service_ ? service_->statistics() : ServiceStatistics(); });
}

void StorageServer::stop() {
  if (!thread_) return;
  on_reactor<bool>([this] {
    service_.reset();
    return true;
  });
}

}  // namespace fs3::storage
