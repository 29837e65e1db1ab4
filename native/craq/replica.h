// One replica of one chain, as a state machine without a world: step(now, event) -> effects.
//
// The storage server turns effects into disk and network I/O and feeds the outcomes back as events;
// the simulator does the same with a simulated disk and network. No thread, clock, socket, disk or
// buffer in here: bytes are named by the operation that brought them (`op`).
//
// Protocol (CRAQ): a client's update enters at the head, which gives it version committed + 1. Each
// replica stages it as the pending version and forwards it at the same time; the tail commits as it
// stages. A replica commits when its own stage is durable and its successor answered; then it
// answers its predecessor, the head its client. Reads are answered by any serving replica from the
// committed version; while a version is pending they wait for it (bounded).
//
// Identity of content: within one chain version one head numbers the updates of a chunk, so
// (update_chain, version) names the content of a chunk for ever, as (term, index) does in a
// replicated log. `update_chain` is the chain version under which the head made the update; it
// travels with the update through forwards, restarts and resync, while `chain_version` of a message
// is the one under which it was sent. Order of content: by update_chain, then by version. A removed
// chunk that is written again begins above the highest version removed in this chain version.
//
// Invariants (checked with FS3_CHECK in step):
//  1. committed <= pending <= committed + 1 for each chunk, but for a whole replacement or a new
//  chunk, which may skip.
//  2. An event that names another chain version than the replica's is refused with
//  kChainVersionMismatch and changes nothing.
//  3. One update per chunk is in progress; later ones wait in order (at most kMaxQueuedPerChunk,
//  then kBusy).
//  4. An update is acknowledged only when every serving and syncing replica after this one holds it
//  durably.
//  5. A read is answered only if the lease still held *after* the bytes were read (ReadDone carries
//  the time).
//  6. The same UpdateIdentity is applied once: rows survive restarts (LoadDedup) and move with
//  resync. A syncing replica's rows become those of its predecessor, because an update that is
//  rolled back must not be answered as done.
//  7. On becoming the last of the serving replicas all pending versions commit; otherwise, on a
//  chain change, they are
//     forwarded again, whole, to the new successor.
//  8. Nothing is forwarded to a syncing successor before it answered the first AskPeerChunks of
//  this chain version: it begins the sync only when its own disk is quiet, so its lists miss
//  nothing.
//  9. A version whose bytes failed their checksum here is neither answered nor sent. It is replaced
//  by the same version of a neighbour in the chain, never by an older one; where nobody has it
//  sound, it counts as damaged in every replica, and the chain goes on; see repair.cc.
//
// Duties of the caller:
//  - Operation ids of requests are unique for the life of the replica. Each request is ended by one
//  Reply. Outcomes may come late or for forgotten operations: they are ignored.
//  - The bytes that a Fetch brought are kept while Fetched is stepped; if that emits a Stage of the
//  same operation, until its outcome.
//  - Stage, Commit and Discard of one chunk reach the disk in the order in which they were emitted.
//  The outcome of a Stage is fed back also when its operation was replied to in the meantime.
//  - SetLease follows a heartbeat only once the routing version named in its answer was applied
//  with SetChain. Otherwise a process that slept through its removal would answer from an old view
//  with a fresh lease.
// Thread safety: none. Determinism: the same events give the same effects in the same order.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/status.h"

namespace fs3::craq {

// Chosen by the caller of step() for requests (top bit clear); made by the replica for its own work
// (top bit set).
using OpId = uint64_t;
constexpr OpId kOwnOp = 1ull << 63;

enum class PublicState : uint8_t {
  kUnknown = 0,
  kServing = 1,
  kLastsrv = 2,
  kSyncing = 3,
  kWaiting = 4,
  kOffline = 5
};
enum class LocalState : uint8_t { kUnknown = 0, kUptodate = 1, kOnline = 2, kOffline = 3 };

struct Peer {
  TargetId target = 0;
  uint32_t node_id = 0;
  bool syncing = false;
};

// What a replica knows of its chain, cut from the routing info.
struct ChainView {
  ChainId chain = 0;
  ChainVersion version = 0;
  PublicState self = PublicState::kUnknown;
  std::optional<Peer> predecessor;  // none: self is the head (or does not serve)
  std::optional<Peer>
      successor;  // the next serving replica; for the last serving one: the syncing replica, if any
};

// ---- events
// -----------------------------------------------------------------------------------------------------------

struct LoadChunk {  // at start, before anything else: what the disk holds
  ChunkId chunk;
  ChunkVersion committed = 0;
  ChainVersion committed_chain = 0;
  uint32_t length = 0;
  uint32_t checksum = 0;
  ChunkVersion pending = 0;  // 0: none
  ChainVersion pending_chain = 0;
  UpdateKind pending_kind = UpdateKind::kNone;
  uint32_t pending_length = 0;
  uint32_t pending_checksum = 0;
  UpdateIdentity pending_identity;
  bool damaged = false;  // bytes of the committed version failed their checksum in an earlier life
};
struct LoadDedup {
  UpdateIdentity identity;
  ChunkId chunk;
  ChunkVersion version = 0;
  uint32_t chunk_length = 0;
  uint32_t checksum = 0;
};
struct SetChain {
  ChainView view;
};  // older or equal versions than the current one are ignored
struct SetLease {  // until_ns: 0.8 T after the acknowledged heartbeat was *sent*
  int64_t until_ns = 0;
};
// The disk has less free space than its reserve (or again more): new writes are refused with ENOSPC
// before anything is staged; removals, truncates, and whatever is already on its way, go on: a file
// that is cut on a full disk is how space comes back. The reserve must
// cover all requests that the server admits, because a failed Stage ends the replica's service.
struct SetSpace {
  bool full = false;
};

struct ClientUpdate {
  OpId op = 0;
  ChunkId chunk;
  UpdateKind kind = UpdateKind::kNone;  // kWrite, kTruncate, kRemove
  uint32_t offset = 0;
  uint32_t length = 0;
  uint32_t chunk_size = 0;
  uint32_t checksum = 0;
  ChainVersion chain_version = 0;
  UpdateIdentity identity;
};
struct Forwarded {
  OpId op = 0;
  TargetId from = 0;
  ChunkId chunk;
  UpdateKind kind = UpdateKind::kNone;  // also kReplace
  ChunkVersion version = 0;
  uint32_t offset = 0;
  uint32_t length = 0;
  uint32_t chunk_size = 0;
  uint32_t checksum = 0;  // of the bytes; kReplace: of the whole chunk
  ChainVersion chain_version = 0;
  ChainVersion update_chain = 0;
  UpdateIdentity identity;
  bool resync = false;
  // kReplace without bytes: the predecessor's copy is damaged. kTruncate: a version that changes
  // nothing, in place of an update that kept damaged bytes.
  bool lost = false;
};
// Outcome of Stage; with commit = true, of both. kChecksumMismatch: bytes that the update keeps of
// the committed version are damaged. Any other error ends the service.
struct Staged {
  OpId op = 0;
  Status status;
  uint32_t chunk_length = 0;
  uint32_t checksum = 0;
};
struct Committed {  // outcome of Commit
  OpId op = 0;
  Status status;
};
// The successor's answer, or kConnectionLost, kTimedOut, or why the bytes could not be read here.
struct ForwardDone {
  OpId op = 0;
  Status status;
  uint32_t checksum = 0;  // of the whole chunk at the successor
};
struct Read {
  OpId op = 0;
  ChunkId chunk;
  ChainVersion chain_version = 0;
  bool relaxed = false;
  int64_t deadline_ns = 0;  // answer kBusy when the pending version has not committed by then
  // A neighbour in the chain that repairs its own copy (its Fetch); 0: a client. Needs no lease:
  // the position that goes with the bytes names them for ever.
  TargetId from = 0;
};
struct ReadDone {
  OpId op = 0;
  Status status;
  ChunkVersion version = 0;  // of the bytes that were read
};
struct PeerChunk {
  ChunkId chunk;
  ChunkVersion version = 0;
  ChainVersion chain_version = 0;
  uint32_t length = 0;
  uint32_t checksum = 0;
  bool pending = false;
};
// The disk's bytes of this version failed their checksum: found by a read, a scrub, or while they
// were to be sent (then before its ForwardDone(kBusy)). Ignored when the version is no longer
// there.
struct Damaged {
  ChunkId chunk;
  ChunkVersion version = 0;
  bool pending = false;  // the pending version, else the committed one
};
// Outcome of Fetch: the whole chunk as the peer holds it; version 0: it has none. The bytes fit
// `checksum`. kDamaged: the peer's own copy is damaged too.
struct Fetched {
  OpId op = 0;
  Status status;
  ChunkVersion version = 0;
  ChainVersion update_chain = 0;
  uint32_t length = 0;
  uint32_t checksum = 0;
};
struct PeerChunks {  // answer to AskPeerChunks
  OpId op = 0;
  Status status;
  std::vector<PeerChunk> chunks;
  bool end = false;
};
struct PeerDone {  // answer to TellPeerDone
  OpId op = 0;
  Status status;
};
// The predecessor asks what this syncing replica holds. The first one of a chain version begins the
// sync: own pending versions and dedup rows go. Each brings rows (any number, in any number of
// requests; of one channel the highest sequence stays). Reply ok: answer with the engine's page, as
// it is then.
struct SyncStart {
  OpId op = 0;
  TargetId from = 0;
  ChainVersion chain_version = 0;
  std::vector<LoadDedup> dedup;
};
struct SyncDone {  // the predecessor says: level
  OpId op = 0;
  TargetId from = 0;
  ChainVersion chain_version = 0;
};
// Resync may send so many bytes of chunks more until the next grant. What was not used lapses; what
// was sent beyond it is taken from the next. Without any grant resync is not limited.
struct GrantResync {
  uint64_t bytes = 0;
};
struct Tick {};  // at least every 100 ms: time-outs, repeated forwards, the next resync step

using Event = std::variant<LoadChunk, LoadDedup, SetChain, SetLease, SetSpace, ClientUpdate,
                           Forwarded, Staged, Committed, ForwardDone, Read, ReadDone, Damaged,
                           Fetched, PeerChunks, PeerDone, SyncStart, SyncDone, GrantResync, Tick>;

// ---- effects
// ----------------------------------------------------------------------------------------------------------

// engine.stage with the bytes of `op`. kReplace and kRemove with commit = true hold whatever the
// disk has, also a newer version: resync goes back as well as forward. kRemove then deletes the
// chunk and its pending version, and is ok when there is none. `lost`: kReplace without bytes; what
// is kept is `length`, `checksum`, and that the bytes are damaged. kTruncate to the length that is
// there; the bytes stay as they are, damaged or not.
struct Stage {
  OpId op = 0;
  ChunkId chunk;
  UpdateKind kind = UpdateKind::kNone;
  ChunkVersion version = 0;
  ChainVersion chain_version = 0;  // update_chain: kept with the version
  uint32_t offset = 0;
  uint32_t length = 0;
  uint32_t checksum = 0;
  UpdateIdentity identity;
  bool commit = false;  // in the same durable batch: the tail
  bool lost = false;
};
struct Commit {
  OpId op = 0;
  ChunkId chunk;
  ChunkVersion version = 0;
  bool synced = true;
};
struct Discard {
  ChunkId chunk;
};  // forget the pending version; no outcome is fed back
struct PutDedup {        // make durable; no outcome is fed back
  bool replace = false;  // forget all other rows first
  std::vector<LoadDedup> rows;
};
struct Forward {
  OpId op = 0;      // of this attempt: ForwardDone names it
  OpId source = 0;  // kOfOp: the request whose bytes go
  Peer to;
  ChunkId chunk;
  UpdateKind kind = UpdateKind::kNone;
  ChunkVersion version = 0;
  ChainVersion chain_version = 0;
  ChainVersion update_chain = 0;
  uint32_t offset = 0;
  uint32_t length = 0;
  uint32_t chunk_size = 0;
  uint32_t checksum = 0;
  UpdateIdentity identity;
  bool resync = false;
  // The bytes to send: those that came with `source`, or (kind kReplace) the whole pending or
  // committed version from the disk; when the disk meanwhile holds another version than `version`,
  // feed ForwardDone(kBusy).
  enum class Bytes : uint8_t {
    kOfOp = 0,
    kPending = 1,
    kCommitted = 2,
    kNone = 3
  } bytes = Bytes::kOfOp;
  bool lost = false;  // as in Forwarded; a kReplace then has no bytes (kNone)
};
struct StartRead {  // engine.read of the committed version, then ReadDone
  OpId op = 0;
  ChunkId chunk;
};
// Ask the neighbour for its committed version of the chunk, whole (its Read with `from`), then
// Fetched. `settled`: not before what is pending there has committed (a Read that is not relaxed).
struct Fetch {
  OpId op = 0;
  Peer from;
  ChunkId chunk;
  ChainVersion chain_version = 0;
  bool settled = false;
};
struct Reply {  // ends `op`; its bytes may go
  OpId op = 0;
  Status status;
  ChunkVersion version = 0;
  uint32_t chunk_length = 0;
  uint32_t checksum = 0;
};
struct AskPeerChunks {  // page after `after` of what the syncing successor holds
  OpId op = 0;
  Peer peer;
  ChainVersion chain_version = 0;
  std::optional<ChunkId> after;
  std::vector<LoadDedup> dedup;  // first page only
};
struct TellPeerDone {
  OpId op = 0;
  Peer peer;
  ChainVersion chain_version = 0;
};
struct SetLocal {
  LocalState state = LocalState::kUnknown;
};  // report in the next heartbeat, sent at once

using Effect = std::variant<Stage, Commit, Discard, PutDedup, Forward, StartRead, Fetch, Reply,
                            AskPeerChunks, TellPeerDone, SetLocal>;

constexpr size_t kMaxQueuedPerChunk = 64;
// So many chunks are on their way to a syncing successor at a time; when these are large, so many
// bytes as pace.h says.
constexpr size_t kResyncWindow = 32;

struct ReplicaStatistics {
  uint64_t chunks = 0, pending = 0, queued = 0, waiting_reads = 0, dedup_rows = 0;
  uint64_t resync_sent = 0, resync_skipped = 0, resync_bytes = 0;  // chunks; bytes of those sent
  uint64_t resync_window = 0;  // bytes that may be on their way now
  bool resyncing = false;      // brings its successor level
  uint64_t damaged = 0;        // chunks that are damaged now
  uint64_t damage_found = 0;   // since the start
  uint64_t repaired = 0;       // from a neighbour, since the start
};

class Replica {
 public:
  explicit Replica(TargetId target);
  ~Replica();
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  // Appends effects to `out`, in the order in which they must begin.
  void step(int64_t now_ns, const Event& event, std::vector<Effect>& out);

  TargetId target() const;
  const ChainView& chain() const;
  LocalState local() const;
  bool damaged(const ChunkId& chunk) const;  // known, and not repaired yet
  bool resyncing() const;
  ReplicaStatistics statistics() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fs3::craq
