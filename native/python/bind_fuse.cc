// FuseMount: our FUSE session under Python's control, serving a memory file system (tests, ceiling
// of benchmarks) or the cluster.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <memory>

#include "fuse/cluster_mount.h"
#include "fuse/memory_fs.h"
#include "fuse/mount.h"
#include "python/module.h"

namespace fs3::python {
namespace {

using nb::literals::operator""_a;

[[noreturn]] void raise_status(const Status& status) {
  PyErr_SetObject(PyExc_OSError, nb::make_tuple(status.to_errno(), status.to_string()).ptr());
  throw nb::python_error();
}

void check(const Status& status) {
  if (!status.ok()) raise_status(status);
}

fuse::UringMode uring_mode(const std::string& text) {
  if (text == "off") return fuse::UringMode::kOff;
  if (text == "required") return fuse::UringMode::kRequired;
  if (text == "auto") return fuse::UringMode::kAuto;
  throw nb::value_error("uring must be 'auto', 'off' or 'required'");
}

nb::dict operations(const fuse::Mount& mount) {
  nb::dict all;
  for (const auto& sample : mount.operations()) {
    nb::dict one;
    one["count"] = sample.count;
    one["errors"] = sample.errors;
    one["total_ns"] = sample.total_ns;
    nb::list buckets;
    for (uint64_t bucket : sample.buckets) buckets.append(bucket);
    one["buckets"] = buckets;
    all[nb::str(sample.name.data(), sample.name.size())] = one;
  }
  return all;
}

fuse::AtimePolicy atime_policy(const std::string& text) {
  if (text == "relatime") return fuse::AtimePolicy::kRelative;
  if (text == "noatime") return fuse::AtimePolicy::kNever;
  if (text == "strictatime") return fuse::AtimePolicy::kAlways;
  throw nb::value_error("atime must be 'relatime', 'noatime' or 'strictatime'");
}

std::string bytes_of(const nb::bytes& value) { return {value.c_str(), value.size()}; }

nb::dict counts(const fuse::ClusterMount& mount) {
  auto all = mount.counts();
  nb::dict dict;
  dict["open_files"] = all.open_files;
  dict["nodes"] = all.nodes;
  dict["meta_calls"] = all.client.meta_calls;
  dict["meta_retries"] = all.client.meta_retries;
  dict["reads"] = all.client.reads;
  dict["read_bytes"] = all.client.read_bytes;
  dict["writes"] = all.client.writes;
  dict["write_bytes"] = all.client.write_bytes;
  dict["data_retries"] = all.client.data_retries;
  dict["routing_refreshes"] = all.client.routing_refreshes;
  dict["dirty_bytes"] = all.client.dirty_bytes;
  dict["inflight"] = all.client.inflight;
  return dict;
}

// (name, target, uid, pid, number, descriptors)
fuse::KeptRing kept_ring(nb::handle parts) {
  auto all = nb::cast<nb::tuple>(parts);
  fuse::KeptRing kept;
  kept.name.name = nb::cast<std::string>(all[0]);
  kept.name.target = bytes_of(nb::cast<nb::bytes>(all[1]));
  kept.name.owner = {nb::cast<uint32_t>(all[2]), nb::cast<uint32_t>(all[3])};
  kept.name.number = nb::cast<uint64_t>(all[4]);
  kept.descriptors = nb::cast<std::vector<int>>(all[5]);
  return kept;
}

std::unique_ptr<fuse::ClusterMount> cluster_mount(
    std::string mountpoint, std::vector<std::string> meta_addresses, nb::bytes cluster_id,
    nb::bytes client_id, std::string source, std::string subtype, std::string uring,
    uint32_t uring_depth, uint32_t reactors, double ttl_max_s, bool direct_io, bool allow_other,
    bool read_only, bool allow_suid, bool allow_dev, std::string atime, bool squash_root,
    size_t write_back_bytes, double meta_deadline_s, double data_deadline_s, bool survives,
    std::vector<int> inherited, uint64_t root_inode, int keeper, nb::list kept_rings) {
  fuse::SessionOptions session;
  session.mount.mountpoint = std::move(mountpoint);
  session.mount.source = std::move(source);
  session.mount.subtype = std::move(subtype);
  session.mount.allow_other = allow_other;
  session.mount.read_only = read_only;
  session.mount.allow_suid = allow_suid;
  session.mount.allow_dev = allow_dev;
  session.uring = uring_mode(uring);
  session.uring_depth = uring_depth;
  client::Options client;
  client.meta_addresses = std::move(meta_addresses);
  client.cluster_id = bytes_of(cluster_id);
  client.client_id = bytes_of(client_id);
  client.write_back_bytes = write_back_bytes;
  client.meta_deadline_ns = static_cast<int64_t>(meta_deadline_s * 1e9);
  client.data_deadline_ns = static_cast<int64_t>(data_deadline_s * 1e9);
  fuse::ClusterFsOptions filesystem;
  filesystem.ttl_max_ns = static_cast<int64_t>(ttl_max_s * 1e9);
  filesystem.direct_io = direct_io;
  filesystem.write_back = write_back_bytes > 0;
  filesystem.atime = read_only ? fuse::AtimePolicy::kNever : atime_policy(atime);
  filesystem.squash_root = squash_root;
  session.root_inode = filesystem.root_inode = root_inode;
  filesystem.keeper = keeper;
  for (nb::handle each : kept_rings) filesystem.kept.push_back(kept_ring(each));
  if (survives || !inherited.empty()) {
    auto handover =
        inherited.empty() ? fuse::Handover::create() : fuse::Handover::adopt(inherited.front());
    check(handover.status());
    session.handover = filesystem.handover = *handover;
    if (!inherited.empty()) {
      session.inherited.assign(inherited.begin() + 1, inherited.end());
      filesystem.root_inode = (*handover)->connection().root_inode;
    }
  }
  return std::make_unique<fuse::ClusterMount>(std::move(session), reactors, std::move(client),
                                              filesystem);
}

void bind_fuse(nb::module_& m) {
  m.def("fuse_uring_allowed", &fuse::kernel_allows_uring,
        "Whether /sys/module/fuse/parameters/enable_uring is on.");
  m.def(
      "fuse_unmount",
      [](const std::string& mountpoint, bool lazy) {
        Status status;
        {
          nb::gil_scoped_release release;
          status = fuse::unmount_path(mountpoint, lazy);
        }
        check(status);
      },
      "mountpoint"_a, "lazy"_a = false,
      "umount2(2), or fusermount3 -u for ordinary users. OSError EBUSY, EINVAL.");

  nb::class_<fuse::Mount>(m, "FuseMount",
                          "A mounted file system and the threads that serve it. Owns both; the "
                          "destructor unmounts lazily.")
      .def(
          "start",
          [](fuse::Mount& mount) {
            Status status;
            {
              nb::gil_scoped_release release;
              status = mount.start();
            }
            check(status);
          },
          "Mounts and negotiates with the kernel. OSError when that fails.")
      .def(
          "wait",
          [](fuse::Mount& mount, double timeout_s) {
            nb::gil_scoped_release release;
            return mount.wait(static_cast<int64_t>(timeout_s * 1e9));
          },
          "timeout_s"_a, "True when the mount has ended, False when the time is over.")
      .def(
          "stop",
          [](fuse::Mount& mount, bool force) {
            Status status;
            {
              nb::gil_scoped_release release;
              status = mount.stop(force);
            }
            check(status);
          },
          "force"_a = true,
          "Unmounts and ends all threads. Without force OSError EBUSY while it is in use.")
      .def(
          "descriptors", &fuse::Mount::descriptors,
          "What another process needs to take the mount over, and a keeper has to hold until then; "
          "empty unless it was made with survives. Owned by the mount.")
      .def(
          "let_go",
          [](fuse::Mount& mount, double timeout_s) {
            nb::gil_scoped_release release;
            return mount.let_go(static_cast<int64_t>(timeout_s * 1e9));
          },
          "timeout_s"_a,
          "Stops serving without unmounting, for another process: what was written is settled. "
          "False when requests under way were not answered in that time: they are sent again. The "
          "process has to end at once, without stop(). REQUIRES: made with survives.")
      .def("running", &fuse::Mount::running, "Mounted and not yet unmounted by anybody.")
      .def("over_uring", &fuse::Mount::over_uring, "FUSE over io_uring was agreed.")
      .def("operations", &operations,
           "Per operation: count, errors, total_ns, and buckets (i counts [2^i, 2^(i+1)) us).");

  nb::class_<fuse::ClusterMount, fuse::Mount>(
      m, "ClusterMount", "A FuseMount of a cluster, with the native client on the same threads.")
      .def(
          "update_routing",
          [](fuse::ClusterMount& mount, nb::bytes routing) {
            std::string_view view(routing.c_str(), routing.size());
            Status status;
            {
              nb::gil_scoped_release release;
              status = mount.update_routing(view);
            }
            check(status);
          },
          "routing"_a,
          "A serialized fs3.proto.RoutingInfo; older versions are ignored. OSError ENOTCONN when "
          "not running.")
      .def("counts", &counts, "Counters of the native client, open files and known inodes.");

  m.def("cluster_mount", &cluster_mount, "mountpoint"_a, "meta_addresses"_a, "cluster_id"_a,
        "client_id"_a, "source"_a = "fs3", "subtype"_a = "fs3", "uring"_a = "auto",
        "uring_depth"_a = 16, "reactors"_a = 0, "ttl_max_s"_a = 1.0, "direct_io"_a = false,
        "allow_other"_a = true, "read_only"_a = false, "allow_suid"_a = false,
        "allow_dev"_a = false, "atime"_a = "relatime", "squash_root"_a = false,
        "write_back_bytes"_a = size_t{4} << 20, "meta_deadline_s"_a = 30.0,
        "data_deadline_s"_a = 60.0, "survives"_a = false, "inherited"_a = std::vector<int>(),
        "root_inode"_a = 1, "keeper"_a = -1, "kept_rings"_a = nb::list(),
        "A ClusterMount, not started. cluster_id: 16 bytes or none; client_id: 16 random bytes, "
        "fresh per process. survives: another process can take the mount over, with descriptors(); "
        "inherited: those of the process before, whose mount is taken over instead of made. "
        "root_inode: the directory that is mounted. keeper: its socket, which is told of rings; "
        "kept_rings: what it has of the process before, (name, target, uid, pid, number, "
        "descriptors) each; those are taken over.");

  m.def(
      "null_mount",
      [](std::string mountpoint, std::string uring, uint32_t reactors, double ttl_s, bool direct_io,
         uint64_t capacity_bytes, bool allow_other, uint32_t uring_depth) {
        fuse::SessionOptions options;
        options.mount.mountpoint = std::move(mountpoint);
        options.mount.source = "fs3-null";
        options.mount.allow_other = allow_other;
        options.uring = uring_mode(uring);
        options.uring_depth = uring_depth;
        fuse::MemoryFsOptions memory{static_cast<int64_t>(ttl_s * 1e9), direct_io, capacity_bytes};
        auto make = [memory](const std::vector<Reactor*>&) {
          return Result<std::unique_ptr<fuse::Filesystem>>(
              std::make_unique<fuse::MemoryFs>(memory));
        };
        return std::make_unique<fuse::Mount>(std::move(options), reactors, make);
      },
      "mountpoint"_a, "uring"_a = "auto", "reactors"_a = 0, "ttl_s"_a = 1.0, "direct_io"_a = false,
      "capacity_bytes"_a = uint64_t{1} << 30, "allow_other"_a = true, "uring_depth"_a = 16,
      "A FuseMount of a memory file system, not started: for tests and as the ceiling of what a "
      "mount can reach.");
}

static Register r(bind_fuse);

}  // namespace
}  // namespace fs3::python
