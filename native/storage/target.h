// One target of this server: a craq::Replica and the world it acts on.
//
//   request ──> event ──> Replica::step ──> effects ──> engine, Forwarder, reply
//                 ^                                        │
//                 └───────────── outcome ──────────────────┘
//
// The operation table keeps, for each request that was not answered yet, the call and the bytes
// that came with it; the replica names them by OpId.
//
// Thread safety: on the reactor's thread only. Ownership: shared, because outcomes of the engine
// may come after the server dropped the target; such outcomes are ignored. Invariants:
//  1. Events are fed one after the other: what happens inside an effect waits until all effects of
//  the step have begun.
//  2. Each ServerCall is answered once, by the replica's Reply or by a refusal before the event.
//  3. No request is answered with ok after the engine failed.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/buffer.h"
#include "base/reactor.h"
#include "craq/replica.h"
#include "engine/engine.h"
#include "net/rpc.h"
#include "storage/admission.h"
#include "storage/codec.h"
#include "storage/forwarder.h"
#include "storage/metrics.h"

namespace fs3::storage {

struct TargetReport {
  TargetId target = 0;
  ChainId chain = 0;
  ChainVersion chain_version = 0;  // newest applied; 0 before the first routing info
  craq::LocalState state = craq::LocalState::kUnknown;
  uint64_t capacity_bytes = 0;  // of the disk
  uint64_t free_bytes = 0;      // of the disk
  uint64_t used_bytes = 0;      // the target's share of the disk by chunks; 0 only when it is empty
  uint64_t damaged_chunks = 0;  // now
  uint64_t repaired_chunks = 0;  // since the start
  uint64_t scrub_passes = 0;     // of the disk, since the start
  double scrub_age_s = 0;        // since the last one ended; 0 before the first
};

class Target : public std::enable_shared_from_this<Target> {
 public:
  // What all targets of a server share; outlives them.
  struct World {
    engine::Engine& engine;
    Forwarder& forwarder;
    Metrics& metrics;
    Function<void()> local_changed;    // a heartbeat is due at once
    Function<void(std::string)> warn;  // something that a person should see
    std::string where;                 // "storage-2", begins every status made here
    Admission admission;
  };

  Target(World& world, TargetId id, ChainId chain);

  // Feeds the replica what the disk holds. Once, before anything else.
  void load();

  // Requests: decoded, allowed, for this target. `data` is the source of the call.
  void read(const ReadCommand& command, net::ServerCallPtr call);
  void update(const UpdateCommand& command, Buffer data, net::ServerCallPtr call);
  void forwarded(const ForwardCommand& command, Buffer data, net::ServerCallPtr call);
  void sync_start(const SyncStartCommand& command, net::ServerCallPtr call);
  void sync_done(const SyncDoneCommand& command, net::ServerCallPtr call);
  void query_last(const QueryLastCommand& command, net::ServerCallPtr call);
  void query_chunks(const QueryChunksCommand& command, net::ServerCallPtr call);
  void fetch(const FetchCommand& command, net::ServerCallPtr call);

  // A read of the chunk failed; when its bytes did not fit their checksum, it is to be repaired.
  void note_damage(ChunkId chunk, const Status& status);
  void set_chain(const craq::ChainView& view);
  void set_lease(int64_t until_ns);
  void grant_resync(uint64_t bytes);
  bool resyncing() const { return replica_.resyncing(); }
  void tick();

  TargetId id() const { return id_; }
  ChainId chain_id() const { return chain_id_; }
  TargetReport report() const;
  craq::ReplicaStatistics statistics() const { return replica_.statistics(); }
  size_t open_operations() const { return operations_.size(); }

 private:
  enum class Kind : uint8_t { kRead, kUpdate, kForwarded, kSyncStart, kSyncDone, kFetch };
  struct Operation {
    Kind kind = Kind::kRead;
    net::ServerCallPtr call;
    int64_t began_ns = 0;
    Buffer data;                       // kUpdate, kForwarded: what came; else: what was read
    uint32_t offset = 0;               // kRead, kFetch
    uint32_t length = 0;               // kRead, kFetch; else: bytes that count as moved
    engine::VersionInfo seen;          // kRead, kFetch: what was read
    uint32_t limit = 0;                // kSyncStart: of the page
    std::optional<size_t> size_class;  // kUpdate, kForwarded: of the block counted as admitted
    std::optional<ChunkId> after;
  };

  // Answers with what `look` finds on the disk, if this target may speak for its chain.
  template <typename Look>
  void look_at_disk(const char* what, ChainVersion chain_version, net::ServerCallPtr call,
                    Look look);
  craq::OpId begin(Kind kind, net::ServerCallPtr call);
  // Takes the bytes of an update that may make its chunk `end` bytes long; tells the replica
  // whether the disk has room for it.
  void admit(craq::OpId op, ChunkId chunk, UpdateKind kind, uint32_t end, Buffer data);
  void feed(craq::Event event);

  void execute(craq::Stage& effect);
  void execute(craq::Commit& effect);
  void execute(craq::Discard& effect);
  void execute(craq::PutDedup& effect);
  void execute(craq::Forward& effect);
  void execute(craq::StartRead& effect);
  void execute(craq::Fetch& effect);
  void execute(craq::Reply& effect);
  void execute(craq::AskPeerChunks& effect);
  void execute(craq::TellPeerDone& effect);
  void execute(craq::SetLocal& effect);

  void send(const craq::Forward& effect, Buffer bytes);
  void send_from_disk(const craq::Forward& effect);
  void reply_read(Operation& operation, const craq::Reply& reply);
  void reply_fetch(Operation& operation);
  void reply_sync_start(Operation& operation);
  // Of a Stage: what came with its request, or what its Fetch brought.
  Buffer bytes_of(const craq::Stage& effect);
  void count(const Operation& operation, bool ok);
  // Warns of what a person should know; the first time the disk is found failed, of that too.
  void note_engine(const Status& status, bool write);
  void note_refusal(const Status& status);
  Status answer_of(const Status& status) const;

  World& world_;
  const TargetId id_;
  const ChainId chain_id_;
  craq::Replica replica_;
  int64_t lease_until_ns_ = 0;
  craq::OpId next_op_ = 1;
  bool full_ = false;
  bool failure_noted_ = false;
  bool feeding_ = false;
  std::deque<craq::Event> waiting_events_;
  std::vector<craq::Effect> effects_;
  std::unordered_map<craq::OpId, Operation> operations_;
  std::unordered_map<craq::OpId, Buffer> fetched_;  // until Fetched was stepped
};

}  // namespace fs3::storage
