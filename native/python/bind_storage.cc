// fs3._native.StorageServer: native/storage/server.h.
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include "python/errors.h"
#include "python/module.h"
#include "storage/server.h"

namespace fs3::python {
namespace {

using storage::LatencyHistogram;
using storage::StorageServer;

std::string to_string(const nb::bytes& bytes) { return {bytes.c_str(), bytes.size()}; }

std::unique_ptr<StorageServer> create(std::string directory, nb::bytes cluster_id, uint32_t node_id,
                                      nb::bytes incarnation, nb::bytes keyring,
                                      std::vector<std::string> addresses, uint64_t capacity_bytes,
                                      double scrub_period_s, uint64_t scrub_bytes_per_s,
                                      uint64_t resync_bytes_per_s) {
  storage::ServerOptions options;
  options.directory = std::move(directory);
  options.cluster_id = to_string(cluster_id);
  options.node_id = node_id;
  options.incarnation = to_string(incarnation);
  options.keyring = take(auth::Keyring::parse(to_string(keyring)));
  options.addresses = std::move(addresses);
  options.capacity_bytes = capacity_bytes;
  options.scrub.period_ns = static_cast<int64_t>(scrub_period_s * 1e9);
  options.scrub.bytes_per_s = scrub_bytes_per_s;
  options.resync_bytes_per_s = resync_bytes_per_s;
  auto server = [&] {
    nb::gil_scoped_release release;
    return StorageServer::create(std::move(options));
  }();
  return take(std::move(server));
}

void update_routing(StorageServer& server, nb::bytes routing) {
  std::string_view bytes(routing.c_str(), routing.size());
  Status status = [&] {
    nb::gil_scoped_release release;
    return server.update_routing(bytes);
  }();
  check(status);
}

nb::list target_reports(const StorageServer& server) {
  auto reports = [&] {
    nb::gil_scoped_release release;
    return server.target_reports();
  }();
  nb::list out;
  for (const auto& r : reports) {
    nb::dict row;
    row["target_id"] = r.target;
    row["state"] = static_cast<int>(r.state);
    row["chain_id"] = r.chain;
    row["chain_version"] = r.chain_version;
    row["capacity_bytes"] = r.capacity_bytes;
    row["used_bytes"] = r.used_bytes;
    row["free_bytes"] = r.free_bytes;
    row["damaged_chunks"] = r.damaged_chunks;
    row["repaired_chunks"] = r.repaired_chunks;
    row["scrub_passes"] = r.scrub_passes;
    row["scrub_age_s"] = r.scrub_age_s;
    out.append(row);
  }
  return out;
}

nb::list silences(const StorageServer& server) {
  auto silences = [&] {
    nb::gil_scoped_release release;
    return server.silences();
  }();
  nb::list out;
  for (const auto& s : silences) {
    nb::dict row;
    row["node_id"] = s.node_id;
    row["silent_s"] = s.silent_s;
    out.append(row);
  }
  return out;
}

nb::dict operation(const storage::OperationMetrics& metrics) {
  nb::dict out;
  out["count"] = metrics.count;
  out["errors"] = metrics.errors;
  out["bytes"] = metrics.bytes;
  nb::list buckets;
  for (uint64_t count : metrics.latency.counts()) buckets.append(count);
  out["latency_buckets"] = buckets;
  out["latency_sum_s"] = static_cast<double>(metrics.latency.sum_ns()) * 1e-9;
  return out;
}

nb::dict replica(const craq::ReplicaStatistics& s) {
  nb::dict out;
  out["chunks"] = s.chunks;
  out["pending"] = s.pending;
  out["queued"] = s.queued;
  out["waiting_reads"] = s.waiting_reads;
  out["dedup_rows"] = s.dedup_rows;
  out["resync_sent"] = s.resync_sent;
  out["resync_skipped"] = s.resync_skipped;
  out["resync_bytes"] = s.resync_bytes;
  out["resyncing"] = s.resyncing;
  out["resync_window"] = s.resync_window;
  out["damaged"] = s.damaged;
  out["damage_found"] = s.damage_found;
  out["repaired"] = s.repaired;
  return out;
}

nb::dict space(const engine::Space& s) {
  nb::dict out;
  out["capacity_bytes"] = s.capacity_bytes;
  out["free_bytes"] = s.free_bytes;
  out["used_bytes"] = s.used_bytes;
  out["chunks"] = s.chunks;
  return out;
}

nb::dict engine_counts(const engine::Statistics& s) {
  nb::dict out;
  out["reads"] = s.reads;
  out["read_bytes"] = s.read_bytes;
  out["stages"] = s.stages;
  out["staged_bytes"] = s.staged_bytes;
  out["commits"] = s.commits;
  out["syncs"] = s.syncs;
  out["checksum_errors"] = s.checksum_errors;
  out["copied_bytes"] = s.copied_bytes;
  out["patches"] = s.patches;
  out["folded_bytes"] = s.folded_bytes;
  out["patch_bytes"] = s.patch_bytes;
  return out;
}

nb::dict network(const net::RpcServer::Statistics& s) {
  nb::dict out;
  out["connections"] = s.connections;
  out["requests"] = s.requests;
  out["bad_frames"] = s.bad_frames;
  out["bytes_in"] = s.bytes_in;
  out["bytes_out"] = s.bytes_out;
  out["open_connections"] = s.open_connections;
  out["requests_in_flight"] = s.requests_in_flight;
  return out;
}

nb::dict scrub(const storage::ServiceStatistics& s) {
  nb::dict out;
  out["passes"] = s.scrub.passes;
  out["chunks"] = s.scrub.chunks;
  out["bytes"] = s.scrub.bytes;
  out["damaged"] = s.scrub.damaged;
  out["age_s"] = s.scrub_age_s;
  return out;
}

nb::dict statistics(const StorageServer& server) {
  auto s = [&] {
    nb::gil_scoped_release release;
    return server.statistics();
  }();
  const auto& m = s.metrics;
  nb::dict operations, counters, targets, out;
  operations["read"] = operation(m.read);
  operations["write"] = operation(m.write);
  operations["receive"] = operation(m.receive);
  operations["forward"] = operation(m.forward);
  operations["stage"] = operation(m.stage);
  operations["commit"] = operation(m.commit);
  operations["disk_read"] = operation(m.disk_read);
  counters["denied"] = m.denied;
  counters["bad_requests"] = m.bad_requests;
  counters["checksum_errors"] = m.checksum_errors;
  for (const auto& [id, replica_statistics] : s.targets)
    targets[nb::int_(id)] = replica(replica_statistics);
  out["operations"] = operations;
  out["counters"] = counters;
  out["targets"] = targets;
  out["engine"] = engine_counts(s.engine);
  out["space"] = space(s.space);
  out["network"] = network(s.network);
  out["scrub"] = scrub(s);
  return out;
}

nb::list latency_bounds_s() {
  nb::list out;
  for (size_t b = 0; b < LatencyHistogram::kBuckets; ++b)
    out.append(static_cast<double>(LatencyHistogram::upper_ns(b)) * 1e-9);
  return out;
}

void bind_storage(nb::module_& m) {
  nb::class_<StorageServer>(
      m, "StorageServer",
      "A storage server on its own native thread. All methods may be called from any thread;\n"
      "each waits for that thread with the GIL released. The object owns disk, sockets and "
      "thread:\n"
      "close() or its end releases them.")
      .def(nb::new_(&create), nb::kw_only(), nb::arg("directory"), nb::arg("cluster_id"),
           nb::arg("node_id"), nb::arg("incarnation"), nb::arg("keyring"), nb::arg("addresses"),
           nb::arg("capacity_bytes") = 0, nb::arg("scrub_period_s") = 14.0 * 86400,
           nb::arg("scrub_bytes_per_s") = 32u << 20, nb::arg("resync_bytes_per_s") = 0,
           "Opens the disk (recovery included) and listens. `keyring`: as fs3/auth/keyring.py "
           "serializes it.\n"
           "Nothing serves before update_routing and renew_lease. The disk is scrubbed once in\n"
           "`scrub_period_s` (0: never). Raises fs3.errors.Fs3Error.")
      .def_prop_ro("addresses", &StorageServer::addresses, "Where it listens, with the real ports.")
      .def("update_routing", &update_routing, nb::arg("routing"),
           "A serialized fs3.proto.RoutingInfo; older ones than the applied one are ignored.")
      .def("renew_lease", &StorageServer::renew_lease, nb::arg("until_boottime_ns"),
           nb::call_guard<nb::gil_scoped_release>(),
           "Answer until this time of CLOCK_BOOTTIME, in ns; never moves back. REQUIRES: the "
           "routing\n"
           "info that the acknowledged heartbeat named was applied before.")
      .def("target_reports", &target_reports,
           "For the heartbeat: dicts with the fields of fs3.proto.mgmtd.LocalTarget, by target id.")
      .def("silences", &silences,
           "For the heartbeat: dicts with the fields of fs3.proto.mgmtd.SilentPeer, by node id.")
      .def("statistics", &statistics,
           "Counts and latencies: dict of operations, counters, targets, engine, space, network,\n"
           "scrub.")
      .def_static("latency_bounds_s", &latency_bounds_s,
                  "Upper bounds of latency_buckets, in seconds.")
      .def_prop_ro(
          "notify_fd", &StorageServer::notify_fd,
          "An eventfd, readable when a heartbeat is due at once or warnings wait. Owned by\n"
          "the server.")
      .def("take_warnings", &StorageServer::take_warnings, "Sentences for the log, each once.")
      .def("close", &StorageServer::stop, nb::call_guard<nb::gil_scoped_release>(),
           "Ends all calls and closes the disk. Idempotent.");
}

Register r(bind_storage);

}  // namespace
}  // namespace fs3::python
