// The chunk engine on a simulated disk, step by step, for the simulator (tests/sim/engine_disk.py).
//
// Values as in bind_craq.cc: a chunk id is (inode, index), an identity (client id of 16 bytes,
// channel, sequence); kinds and status codes are ints. Nothing is shared after a call.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "base/crc32c.h"
#include "engine/sim_engine.h"
#include "python/errors.h"
#include "python/ids.h"
#include "python/module.h"

namespace fs3::python {
namespace {

using engine::SimEngine;
using nb::literals::operator""_a;
using RowTuple = std::tuple<UpdateIdentity, ChunkId, ChunkVersion, uint32_t, uint32_t>;
// chain version, version, length, checksum, kind, identity
using VersionTuple =
    std::tuple<ChainVersion, ChunkVersion, uint32_t, uint32_t, int, UpdateIdentity>;
// committed, pending, damaged, pending damaged
using StateTuple = std::tuple<std::optional<VersionTuple>, std::optional<VersionTuple>, bool, bool>;

VersionTuple tuple_of(const engine::VersionInfo& info, UpdateKind kind,
                      const UpdateIdentity& identity) {
  return {info.chain_version, info.version,           info.length,
          info.checksum,      static_cast<int>(kind), identity};
}

StateTuple tuple_of(const engine::ChunkState& state) {
  std::optional<VersionTuple> committed, pending;
  if (state.committed.version != 0) committed = tuple_of(state.committed, UpdateKind::kNone, {});
  if (state.pending)
    pending = tuple_of(*state.pending, state.pending->kind, state.pending->identity);
  return {committed, pending, state.damaged, state.pending_damaged};
}

nb::list outcomes_of(SimEngine& self) {
  nb::list list;
  for (const auto& outcome : self.take_outcomes()) {
    const auto& data = outcome.data;
    list.append(nb::make_tuple(outcome.call, outcome.status.code(), outcome.status.to_string(),
                               outcome.chain_version, outcome.version, outcome.length,
                               outcome.checksum,
                               nb::bytes(reinterpret_cast<const char*>(data.data()), data.size())));
  }
  return list;
}

std::vector<std::tuple<ChunkId, StateTuple>> list_of(SimEngine& self) {
  std::vector<std::tuple<ChunkId, StateTuple>> list;
  for (const auto& state : self.engine().list(SimEngine::kTarget, std::nullopt, SIZE_MAX)) {
    list.emplace_back(state.chunk, tuple_of(state));
  }
  return list;
}

std::vector<RowTuple> rows_of(SimEngine& self) {
  std::vector<RowTuple> rows;
  for (const auto& row : self.engine().dedup_rows(SimEngine::kTarget)) {
    rows.emplace_back(row.identity, row.chunk, row.version, row.chunk_length, row.checksum);
  }
  return rows;
}

void stage(SimEngine& self, uint64_t call, ChunkId chunk, int kind, ChainVersion chain_version,
           ChunkVersion version, uint32_t offset, uint32_t length, nb::bytes data,
           uint32_t checksum, UpdateIdentity identity, bool commit, bool lost) {
  engine::StageRequest request;
  request.chunk = chunk;
  request.kind = static_cast<UpdateKind>(kind);
  request.chain_version = chain_version;
  request.version = version;
  request.offset = offset;
  request.length = length;
  if (data.size() > 0) request.data = Buffer::copy_of(data.c_str(), data.size());
  request.checksum = checksum;
  request.identity = identity;
  request.commit = commit;
  request.lost = lost;
  self.stage(call, std::move(request));
}

void put_rows(SimEngine& self, uint64_t call, const std::vector<RowTuple>& rows, bool replace) {
  std::vector<engine::DedupRow> list;
  for (const auto& [identity, chunk, version, length, checksum] : rows) {
    list.push_back({identity, chunk, version, length, checksum, 0});
  }
  self.put_dedup_rows(call, std::move(list), replace);
}

bool has_room(SimEngine& self, uint32_t length, uint32_t count) {
  engine::BlockCounts blocks{};
  blocks[engine::size_class_of(length)] = count;
  return self.engine().has_room(blocks);
}

// How many calls of each kind fail: 0 none; a call of `write` also fails an allocation.
void set_faults(SimEngine& self, uint64_t reads, uint64_t writes, uint64_t syncs) {
  using On = disk::SimFault::On;
  self.medium().clear_faults();
  auto inject = [&](On on, uint64_t count) {
    if (count > 0) self.medium().inject({.on = on, .count = count});
  };
  inject(On::kRead, reads);
  inject(On::kWrite, writes);
  inject(On::kSync, syncs);
}

nb::dict statistics(SimEngine& self) {
  auto from = self.engine().statistics();
  nb::dict to;
  to["patches"] = from.patches;
  to["folded_bytes"] = from.folded_bytes;
  to["copied_bytes"] = from.copied_bytes;
  to["syncs"] = from.syncs;
  to["checksum_errors"] = from.checksum_errors;
  return to;
}

void bind_lives(nb::class_<SimEngine>& c) {
  c.def(
       "__init__",
       [](SimEngine* self, uint64_t seed, uint64_t capacity_bytes, uint32_t patch_bytes,
          size_t patches, uint64_t fold_bytes, uint64_t patch_bytes_max) {
         new (self) SimEngine(seed, capacity_bytes,
                              {.row_bytes = patch_bytes,
                               .rows = patches,
                               .fold_bytes = fold_bytes,
                               .bytes_max = patch_bytes_max});
       },
       "seed"_a, "capacity_bytes"_a, "patch_bytes"_a, "patches"_a, "fold_bytes"_a,
       "patch_bytes_max"_a, "Limits of patches: engine/patches.h.")
      .def(
          "start", [](SimEngine& self) { check(self.start()); },
          "Recovers the disk, or makes it; all steps of that are done. Errors name what is wrong.")
      .def("stop", &SimEngine::stop, "power_loss"_a,
           "The process dies in the middle of what it does.")
      .def_prop_ro("running", &SimEngine::running)
      .def("replace", &SimEngine::replace, "other"_a.none(),
           "Another disk: a copy of what is durable on the other now, or a blank one.");
}

void bind_calls(nb::class_<SimEngine>& c) {
  c.def("stage", &stage, "call"_a, "chunk"_a, "kind"_a, "chain_version"_a, "version"_a, "offset"_a,
        "length"_a, "data"_a, "checksum"_a, "identity"_a, "commit"_a, "lost"_a)
      .def("commit", &SimEngine::commit, "call"_a, "chunk"_a, "version"_a, "synced"_a)
      .def("discard", &SimEngine::discard, "call"_a, "chunk"_a)
      .def("put_rows", &put_rows, "call"_a, "rows"_a, "replace"_a)
      .def("read", &SimEngine::read, "call"_a, "chunk"_a, "pending"_a)
      .def("take_outcomes", &outcomes_of,
           "Of the calls that ended: (call, code, what, chain version, version, length, checksum, "
           "data).");
}

void bind_time(nb::class_<SimEngine>& c) {
  c.def("take_steps", &SimEngine::take_new_steps, "Steps that began to wait since the last call.")
      .def("run", &SimEngine::run, "step"_a)
      .def("run_all", &SimEngine::run_all);
}

void bind_view(nb::class_<SimEngine>& c) {
  c.def(
       "get",
       [](SimEngine& self, ChunkId chunk) -> std::optional<StateTuple> {
         auto state = self.engine().get(SimEngine::kTarget, chunk);
         if (!state) return std::nullopt;
         return tuple_of(*state);
       },
       "chunk"_a,
       "None, or (committed, pending, damaged, pending damaged); a version is None or (chain "
       "version, version, length, checksum, kind, identity).")
      .def("list", &list_of, "(chunk, as get) of all chunks, in order.")
      .def("rows", &rows_of, "Dedup rows: (identity, chunk, version, length, checksum).")
      .def("sound", &SimEngine::sound, "chunk"_a, "pending"_a,
           "Whether its bytes would be read without an error; not a step.")
      .def("has_room", &has_room, "length"_a, "count"_a)
      .def_prop_ro("used_bytes", [](SimEngine& self) { return self.engine().space().used_bytes; })
      .def_prop_ro("allocated_bytes",
                   [](SimEngine& self) { return self.medium().allocated_bytes(); })
      .def_prop_ro("files_cut", [](SimEngine& self) { return self.env().cut(); })
      .def_prop_ro("failed", [](SimEngine& self) { return self.engine().failed(); })
      .def("statistics", &statistics)
      .def(
          "audit", [](SimEngine& self) { check(self.engine().audit()); },
          "Raises when memory, allocator and stored metadata disagree.");
}

void bind_faults(nb::class_<SimEngine>& c) {
  c.def("rot", &SimEngine::rot, "chunk"_a,
        "A byte of the committed version rots. False: none of it lies in a block.")
      .def("set_faults", &set_faults, "reads"_a, "writes"_a, "syncs"_a,
           "So many of the next calls fail.")
      .def_prop_ro(
          "faults_hit",
          [](SimEngine& self) {
            using On = disk::SimFault::On;
            auto& medium = self.medium();
            return std::tuple(medium.faults_hit(On::kRead), medium.faults_hit(On::kWrite),
                              medium.faults_hit(On::kSync));
          },
          "How many calls failed by set_faults(): reads, writes, syncs.")
      .def(
          "set_capacity",
          [](SimEngine& self, uint64_t bytes) { self.medium().set_capacity(bytes); }, "bytes"_a)
      .def(
          "lie_about_sync",
          [](SimEngine& self, bool data, bool metadata) {
            if (data) self.medium().lie_about_sync();
            if (metadata) self.env().lie_about_log();
          },
          "data"_a, "metadata"_a);
}

void bind_sim_engine(nb::module_& m) {
  nb::class_<SimEngine> c(m, "SimEngine",
                          "The chunk engine of one disk with one target, for a simulator: nothing "
                          "happens but by run(step).");
  bind_lives(c);
  bind_calls(c);
  bind_time(c);
  bind_view(c);
  bind_faults(c);
}

Register registration(bind_sim_engine);

}  // namespace
}  // namespace fs3::python
