// fs3._native.craq: the replica state machine for simulators and tools.
//
// Values: a chunk id is (inode, index); an identity is (client id of 16 bytes, channel, sequence);
// kinds, states and status codes are ints, with the numbers of proto/. Events are built with
// keyword arguments; effects have read-only attributes of the same names as in craq/replica.h. All
// are plain values: nothing is shared with the replica after a call.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "craq/replica.h"
#include "python/ids.h"
#include "python/module.h"

namespace fs3::python {
namespace {

using namespace craq;
using nb::literals::operator""_a;

using PeerTuple = std::tuple<TargetId, uint32_t, bool>;  // target, node, syncing
using RowTuple = std::tuple<UpdateIdentity, ChunkId, ChunkVersion, uint32_t, uint32_t>;

Status status_of(uint32_t code, const std::string& detail) {
  return code == kOk ? Status() : Status(code, "", detail);
}

std::optional<Peer> peer_of(const std::optional<PeerTuple>& peer) {
  if (!peer) return std::nullopt;
  return Peer{std::get<0>(*peer), std::get<1>(*peer), std::get<2>(*peer)};
}

PeerTuple tuple_of(const Peer& peer) { return {peer.target, peer.node_id, peer.syncing}; }

LoadDedup row_of(const RowTuple& row) {
  return {std::get<0>(row), std::get<1>(row), std::get<2>(row), std::get<3>(row), std::get<4>(row)};
}

std::vector<LoadDedup> rows_of(const std::vector<RowTuple>& rows) {
  std::vector<LoadDedup> out;
  for (const auto& row : rows) out.push_back(row_of(row));
  return out;
}

std::vector<RowTuple> tuples_of(const std::vector<LoadDedup>& rows) {
  std::vector<RowTuple> out;
  for (const auto& r : rows)
    out.emplace_back(r.identity, r.chunk, r.version, r.chunk_length, r.checksum);
  return out;
}

// chunk, version, chain version, length, checksum, pending
using PeerChunkTuple = std::tuple<ChunkId, ChunkVersion, ChainVersion, uint32_t, uint32_t, bool>;

void bind_load_events(nb::module_& m) {
  nb::class_<LoadChunk>(m, "LoadChunk")
      .def(
          "__init__",
          [](LoadChunk* t, ChunkId chunk, ChunkVersion committed, ChainVersion committed_chain,
             uint32_t length, uint32_t checksum, ChunkVersion pending, ChainVersion pending_chain,
             int pending_kind, uint32_t pending_length, uint32_t pending_checksum,
             UpdateIdentity pending_identity, bool damaged) {
            new (t) LoadChunk{chunk,
                              committed,
                              committed_chain,
                              length,
                              checksum,
                              pending,
                              pending_chain,
                              static_cast<UpdateKind>(pending_kind),
                              pending_length,
                              pending_checksum,
                              pending_identity,
                              damaged};
          },
          "chunk"_a, "committed"_a, "committed_chain"_a, "length"_a, "checksum"_a, "pending"_a = 0,
          "pending_chain"_a = 0, "pending_kind"_a = 0, "pending_length"_a = 0,
          "pending_checksum"_a = 0, "pending_identity"_a = UpdateIdentity{}, "damaged"_a = false)
      .def_rw("pending_identity", &LoadChunk::pending_identity);
  nb::class_<LoadDedup>(m, "LoadDedup")
      .def(
          "__init__", [](LoadDedup* t, const RowTuple& row) { new (t) LoadDedup(row_of(row)); },
          "row"_a, "(identity, chunk, version, chunk_length, checksum)");
}

void bind_chain_events(nb::module_& m) {
  nb::class_<SetChain>(m, "SetChain")
      .def(
          "__init__",
          [](SetChain* t, ChainId chain, ChainVersion version, int self,
             std::optional<PeerTuple> predecessor, std::optional<PeerTuple> successor) {
            new (t) SetChain{{chain, version, static_cast<PublicState>(self), peer_of(predecessor),
                              peer_of(successor)}};
          },
          "chain"_a, "version"_a, "state"_a, "predecessor"_a.none() = nb::none(),
          "successor"_a.none() = nb::none(), "Peers are (target, node, syncing) or None.");
  nb::class_<SetLease>(m, "SetLease").def(nb::init<int64_t>(), "until_ns"_a);
  nb::class_<SetSpace>(m, "SetSpace").def(nb::init<bool>(), "full"_a);
  nb::class_<Tick>(m, "Tick").def(nb::init<>());
  nb::class_<GrantResync>(m, "GrantResync").def(nb::init<uint64_t>(), "bytes"_a);
  nb::class_<SyncStart>(m, "SyncStart")
      .def(
          "__init__",
          [](SyncStart* t, OpId op, TargetId from, ChainVersion chain_version,
             const std::vector<RowTuple>& dedup) {
            new (t) SyncStart{op, from, chain_version, rows_of(dedup)};
          },
          "op"_a, "from_target"_a, "chain_version"_a, "dedup"_a)
      .def_prop_rw(
          "dedup", [](const SyncStart& e) { return tuples_of(e.dedup); },
          [](SyncStart& e, const std::vector<RowTuple>& rows) { e.dedup = rows_of(rows); });
  nb::class_<SyncDone>(m, "SyncDone")
      .def(nb::init<OpId, TargetId, ChainVersion>(), "op"_a, "from_target"_a, "chain_version"_a);
}

void bind_requests(nb::module_& m) {
  nb::class_<ClientUpdate>(m, "ClientUpdate")
      .def(
          "__init__",
          [](ClientUpdate* t, OpId op, ChunkId chunk, int kind, uint32_t offset, uint32_t length,
             uint32_t chunk_size, uint32_t checksum, ChainVersion chain_version,
             UpdateIdentity identity) {
            new (t) ClientUpdate{op,       chunk,         static_cast<UpdateKind>(kind),
                                 offset,   length,        chunk_size,
                                 checksum, chain_version, identity};
          },
          "op"_a, "chunk"_a, "kind"_a, "offset"_a, "length"_a, "chunk_size"_a, "checksum"_a,
          "chain_version"_a, "identity"_a);
  nb::class_<Forwarded>(m, "Forwarded")
      .def(
          "__init__",
          [](Forwarded* t, OpId op, TargetId from, ChunkId chunk, int kind, ChunkVersion version,
             uint32_t offset, uint32_t length, uint32_t chunk_size, uint32_t checksum,
             ChainVersion chain_version, ChainVersion update_chain, UpdateIdentity identity,
             bool resync, bool lost) {
            new (t) Forwarded{op,       from,          chunk,        static_cast<UpdateKind>(kind),
                              version,  offset,        length,       chunk_size,
                              checksum, chain_version, update_chain, identity,
                              resync,   lost};
          },
          "op"_a, "from_target"_a, "chunk"_a, "kind"_a, "version"_a, "offset"_a, "length"_a,
          "chunk_size"_a, "checksum"_a, "chain_version"_a, "update_chain"_a, "identity"_a,
          "resync"_a, "lost"_a = false);
  nb::class_<Read>(m, "Read")
      .def(nb::init<OpId, ChunkId, ChainVersion, bool, int64_t, TargetId>(), "op"_a, "chunk"_a,
           "chain_version"_a, "relaxed"_a, "deadline_ns"_a, "from_target"_a = 0)
      .def_rw("relaxed", &Read::relaxed);
}

void bind_outcomes(nb::module_& m) {
  nb::class_<Staged>(m, "Staged")
      .def(
          "__init__",
          [](Staged* t, OpId op, uint32_t code, uint32_t chunk_length, uint32_t checksum,
             const std::string& detail) {
            new (t) Staged{op, status_of(code, detail), chunk_length, checksum};
          },
          "op"_a, "code"_a, "chunk_length"_a, "checksum"_a, "detail"_a = "")
      .def_ro("op", &Staged::op)
      .def_prop_ro("code", [](const Staged& e) { return e.status.code(); })
      .def_ro("checksum", &Staged::checksum);
  nb::class_<Committed>(m, "Committed")
      .def(
          "__init__",
          [](Committed* t, OpId op, uint32_t code) { new (t) Committed{op, status_of(code, "")}; },
          "op"_a, "code"_a);
  nb::class_<ForwardDone>(m, "ForwardDone")
      .def(
          "__init__",
          [](ForwardDone* t, OpId op, uint32_t code, uint32_t checksum, const std::string& detail) {
            new (t) ForwardDone{op, status_of(code, detail), checksum};
          },
          "op"_a, "code"_a, "checksum"_a = 0, "detail"_a = "");
  nb::class_<ReadDone>(m, "ReadDone")
      .def(
          "__init__",
          [](ReadDone* t, OpId op, uint32_t code, ChunkVersion version) {
            new (t) ReadDone{op, status_of(code, ""), version};
          },
          "op"_a, "code"_a, "version"_a)
      .def_ro("op", &ReadDone::op);
  nb::class_<Damaged>(m, "Damaged")
      .def(nb::init<ChunkId, ChunkVersion, bool>(), "chunk"_a, "version"_a, "pending"_a);
  nb::class_<Fetched>(m, "Fetched")
      .def(
          "__init__",
          [](Fetched* t, OpId op, uint32_t code, ChunkVersion version, ChainVersion update_chain,
             uint32_t length, uint32_t checksum) {
            new (t) Fetched{op, status_of(code, ""), version, update_chain, length, checksum};
          },
          "op"_a, "code"_a, "version"_a = 0, "update_chain"_a = 0, "length"_a = 0, "checksum"_a = 0)
      .def_ro("op", &Fetched::op);
  nb::class_<PeerChunks>(m, "PeerChunks")
      .def(
          "__init__",
          [](PeerChunks* t, OpId op, uint32_t code, const std::vector<PeerChunkTuple>& chunks,
             bool end) {
            new (t) PeerChunks{op, status_of(code, ""), {}, end};
            for (const auto& [chunk, version, chain, length, checksum, pending] : chunks)
              t->chunks.push_back({chunk, version, chain, length, checksum, pending});
          },
          "op"_a, "code"_a, "chunks"_a, "end"_a,
          "Chunks are (chunk, version, chain_version, length, checksum, pending).");
  nb::class_<PeerDone>(m, "PeerDone")
      .def(
          "__init__",
          [](PeerDone* t, OpId op, uint32_t code) { new (t) PeerDone{op, status_of(code, "")}; },
          "op"_a, "code"_a);
}

void bind_disk_effects(nb::module_& m) {
  nb::class_<Stage>(m, "Stage")
      .def_ro("op", &Stage::op)
      .def_ro("chunk", &Stage::chunk)
      .def_prop_ro("kind", [](const Stage& e) { return static_cast<int>(e.kind); })
      .def_ro("version", &Stage::version)
      .def_ro("chain_version", &Stage::chain_version)
      .def_ro("offset", &Stage::offset)
      .def_ro("length", &Stage::length)
      .def_ro("checksum", &Stage::checksum)
      .def_ro("identity", &Stage::identity)
      .def_ro("commit", &Stage::commit)
      .def_ro("lost", &Stage::lost);
  nb::class_<Commit>(m, "Commit")
      .def_ro("op", &Commit::op)
      .def_ro("chunk", &Commit::chunk)
      .def_ro("version", &Commit::version)
      .def_ro("synced", &Commit::synced);
  nb::class_<Discard>(m, "Discard").def_ro("chunk", &Discard::chunk);
  nb::class_<PutDedup>(m, "PutDedup")
      .def_ro("replace", &PutDedup::replace)
      .def_prop_ro("rows", [](const PutDedup& e) { return tuples_of(e.rows); });
  nb::class_<StartRead>(m, "StartRead")
      .def_ro("op", &StartRead::op)
      .def_ro("chunk", &StartRead::chunk);
  nb::class_<Fetch>(m, "Fetch")
      .def_ro("op", &Fetch::op)
      .def_prop_ro("from_peer", [](const Fetch& e) { return tuple_of(e.from); })
      .def_ro("chunk", &Fetch::chunk)
      .def_ro("chain_version", &Fetch::chain_version)
      .def_ro("settled", &Fetch::settled);
  nb::class_<SetLocal>(m, "SetLocal").def_prop_ro("state", [](const SetLocal& e) {
    return static_cast<int>(e.state);
  });
}

void bind_message_effects(nb::module_& m) {
  nb::class_<Forward>(m, "Forward")
      .def_ro("op", &Forward::op)
      .def_ro("source", &Forward::source)
      .def_prop_ro("to", [](const Forward& e) { return tuple_of(e.to); })
      .def_ro("chunk", &Forward::chunk)
      .def_prop_ro("kind", [](const Forward& e) { return static_cast<int>(e.kind); })
      .def_ro("version", &Forward::version)
      .def_ro("chain_version", &Forward::chain_version)
      .def_ro("update_chain", &Forward::update_chain)
      .def_ro("offset", &Forward::offset)
      .def_ro("length", &Forward::length)
      .def_ro("chunk_size", &Forward::chunk_size)
      .def_ro("checksum", &Forward::checksum)
      .def_ro("identity", &Forward::identity)
      .def_ro("resync", &Forward::resync)
      .def_prop_ro("bytes", [](const Forward& e) { return static_cast<int>(e.bytes); })
      .def_ro("lost", &Forward::lost);
  nb::class_<Reply>(m, "Reply")
      .def_ro("op", &Reply::op)
      .def_prop_ro("code", [](const Reply& e) { return e.status.code(); })
      .def_prop_ro("detail", [](const Reply& e) { return std::string(e.status.detail()); })
      .def_ro("version", &Reply::version)
      .def_ro("chunk_length", &Reply::chunk_length)
      .def_ro("checksum", &Reply::checksum);
  nb::class_<AskPeerChunks>(m, "AskPeerChunks")
      .def_ro("op", &AskPeerChunks::op)
      .def_prop_ro("peer", [](const AskPeerChunks& e) { return tuple_of(e.peer); })
      .def_ro("chain_version", &AskPeerChunks::chain_version)
      .def_ro("after", &AskPeerChunks::after)
      .def_prop_ro("dedup", [](const AskPeerChunks& e) { return tuples_of(e.dedup); });
  nb::class_<TellPeerDone>(m, "TellPeerDone")
      .def_ro("op", &TellPeerDone::op)
      .def_prop_ro("peer", [](const TellPeerDone& e) { return tuple_of(e.peer); })
      .def_ro("chain_version", &TellPeerDone::chain_version);
}

template <typename E>
void accept(nb::class_<Replica>& replica) {
  replica.def(
      "step",
      [](Replica& self, int64_t now_ns, const E& event) {
        std::vector<Effect> out;
        self.step(now_ns, event, out);
        nb::list effects;
        for (auto& effect : out)
          std::visit([&effects](auto& e) { effects.append(nb::cast(std::move(e))); }, effect);
        return effects;
      },
      "now_ns"_a, "event"_a);
}

template <typename... E>
void accept_all(nb::class_<Replica>& replica, std::variant<E...>*) {
  (accept<E>(replica), ...);
}

void bind_craq(nb::module_& parent) {
  nb::module_ m = parent.def_submodule(
      "craq", "One replica of one chain as a state machine: step(now_ns, event) -> effects.");
  bind_load_events(m);
  bind_chain_events(m);
  bind_requests(m);
  bind_outcomes(m);
  bind_disk_effects(m);
  bind_message_effects(m);
  nb::class_<Replica> replica(m, "Replica",
                              "Replica(target). Not thread-safe; owns nothing outside itself.");
  replica.def(nb::init<TargetId>(), "target"_a);
  accept_all(replica, static_cast<Event*>(nullptr));
  replica.def_prop_ro("target", &Replica::target)
      .def_prop_ro("chain_version", [](const Replica& r) { return r.chain().version; })
      .def_prop_ro("state", [](const Replica& r) { return static_cast<int>(r.chain().self); })
      .def_prop_ro("local", [](const Replica& r) { return static_cast<int>(r.local()); })
      .def("statistics", [](const Replica& r) {
        ReplicaStatistics s = r.statistics();
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
        out["damaged"] = s.damaged;
        out["damage_found"] = s.damage_found;
        out["repaired"] = s.repaired;
        return out;
      });
}

const Register registered(bind_craq);

}  // namespace
}  // namespace fs3::python
