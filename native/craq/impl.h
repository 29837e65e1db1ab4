// The inside of Replica, shared by the files that hold its rules:
//   replica.cc  events of the chain, the lease, loading, the clock; what all rules share
//   client.cc   a client's update at the head
//   forwarded.cc  an update from the predecessor
//   update.cc   the progress of an update to its answer
//   read.cc     reads
//   repair.cc   damaged bytes: taken from a neighbour
//   resync.cc   bringing a syncing successor level
//   sync.cc     being brought level
//
// A chunk with work in progress has a Slot. In it at most one thing runs at a time: an update, or
// the transfer of the chunk to a syncing successor; the rest waits in order of arrival. Everything
// that is known of idle chunks is in the ChunkMap.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/check.h"
#include "craq/chunk_map.h"
#include "craq/dedup.h"
#include "craq/pace.h"
#include "craq/replica.h"

namespace fs3::craq {

constexpr int64_t kMillisecond = 1'000'000;
constexpr int64_t kSecond = 1'000'000'000;
// How long a request may wait here. Longer than a chain change takes at the default lease.
constexpr int64_t kUpdateWaitNs = 10 * kSecond;
constexpr int64_t kBackoffFirstNs = 20 * kMillisecond;
constexpr int64_t kBackoffLastNs = kSecond;
// A chunk of which every neighbour's copy is damaged too is asked for again after so long. A
// replica that comes back with it changes the chain, and then it is asked at once.
constexpr int64_t kLostBackoffNs = 10 * kSecond;
inline int64_t next_backoff(int64_t backoff_ns) {
  return backoff_ns == 0 ? kBackoffFirstNs : std::min(backoff_ns * 2, kBackoffLastNs);
}
// A message that was sent before a removal and arrives later than this would bring the chunk back
// on this replica; servers drop requests long before.
constexpr int64_t kTombstoneNs = 120 * kSecond;
constexpr size_t kMaxReadsPerChunk = 1024;
constexpr uint32_t kMaxChunkSize = 64u << 20;

// What a full disk refuses. A removal and a truncate take no block.
inline bool needs_room(UpdateKind kind) {
  return kind != UpdateKind::kRemove && kind != UpdateKind::kTruncate;
}

enum class Phase : uint8_t { kNone, kRunning, kDone };

// The pending version of a chunk, and how far it is.
struct Update {
  UpdateKind kind = UpdateKind::kNone;
  Position position;
  uint32_t offset = 0;
  uint32_t length = 0;
  uint32_t chunk_size = 0;
  uint32_t checksum = 0;
  UpdateIdentity identity;
  bool resync = false;
  // kReplace: what it brings is that the bytes are damaged everywhere. kTruncate: it changes
  // nothing, and took the place of an update that nobody could stage.
  bool lost = false;
  bool from_disk = false;  // loaded: what the client asked for is not known, only what came of it

  Phase staged = Phase::kNone;
  Phase forwarded = Phase::kNone;
  Phase committed = Phase::kNone;
  bool commit_with_stage = false;
  bool whole = false;  // the successor needs the whole chunk
  // It cannot be staged: bytes that it keeps, or its own on the disk, are damaged (repair.cc).
  bool unsound = false;
  bool sent = false;          // some attempt of this chain version went to the successor
  uint32_t chunk_length = 0;  // once staged
  uint32_t chunk_checksum = 0;
  std::optional<uint32_t> peer_checksum;
  Status failed;  // it can go on only after a chain change

  OpId stage_op = 0, commit_op = 0, forward_op = 0;
  bool forward_was_whole = false;
  OpId source = 0;     // the request whose bytes can still be sent
  OpId client_op = 0;  // who waits for the outcome
  OpId forward_op_in = 0;
  int64_t client_since_ns = 0, forward_since_ns = 0;
  int64_t retry_at_ns = 0, backoff_ns = 0;
  ChainVersion began_in = 0;  // chain version of this replica when it arrived
  ResyncPace::Mark mark;

  bool voided() const { return lost && kind == UpdateKind::kTruncate; }
  bool pending() const { return committed != Phase::kDone; }
  bool on_disk_now() const { return staged == Phase::kRunning || committed == Phase::kRunning; }
};

// The range of an update, or what is wrong with it; the sums cannot overflow in 64 bits.
inline const char* bad_range(UpdateKind kind, uint64_t offset, uint64_t length,
                             uint64_t chunk_size) {
  if (chunk_size > kMaxChunkSize) return "chunk_size: is above 64 MiB";
  if (kind == UpdateKind::kRemove) return nullptr;
  if (kind == UpdateKind::kWrite && length == 0) return "length: a write has at least one byte";
  if (kind != UpdateKind::kWrite && offset != 0) return "offset: belongs to writes only";
  if (offset + length > chunk_size) return "length: reaches beyond chunk_size";
  return nullptr;
}

// The same bytes at the same place: only then can the request's bytes stand in for the update's.
template <typename E>
bool same_request(const Update& update, const E& event) {
  return update.kind == event.kind && update.offset == event.offset &&
         update.length == event.length && update.checksum == event.checksum;
}

inline std::string text(const Position& p) {
  return std::to_string(p.version) + " of chain version " + std::to_string(p.chain);
}

struct ResyncItem {};

struct Queued {
  std::variant<ClientUpdate, Forwarded, ResyncItem> what;
  int64_t since_ns = 0;
};

// A Fetch on its way, or the Stage of what it brought in place of the damaged committed version.
struct Repair {
  OpId op = 0;
  bool above = false;  // the predecessor was asked
  bool staging = false;
};

struct Slot {
  std::optional<Update> update;
  OpId resync_op = 0;  // the chunk is on its way to the syncing successor
  uint32_t resync_length = 0;
  std::optional<Repair> repair;
  std::deque<Queued> queue;
  std::vector<OpId> reads;  // that wait for the pending version
  bool busy() const { return update.has_value() || resync_op != 0 || repair.has_value(); }
  bool empty() const { return !busy() && queue.empty() && reads.empty(); }
};

// A chunk that needs a neighbour's bytes.
struct Damage {
  bool committed = false;   // the committed version is damaged; else only an unsound update is
  bool unreadable = false;  // so says the disk; else it may be
  bool ask_above = false;   // the next attempt asks the predecessor
  bool below = false, above = false;  // the successor's copy is damaged too; the predecessor's
  int64_t retry_at_ns = 0, backoff_ns = 0;
};

struct ReadOperation {
  ChunkId chunk;
  TargetId from = 0;
  bool relaxed = false;
  bool started = false;
  int64_t deadline_ns = 0;
  ChainVersion started_in = 0;
  ResyncPace::Mark mark;
};

// The predecessor's side of bringing a syncing successor level. One per chain version.
struct Resync {
  enum class Step : uint8_t { kAsk, kMerge, kTell, kDone };
  Peer peer;
  Step step = Step::kAsk;
  bool open = false;  // the successor began the sync: updates may go to it
  OpId op = 0;        // AskPeerChunks or TellPeerDone on its way
  int64_t retry_at_ns = 0, backoff_ns = 0;
  std::optional<ChunkId> page_after;
  std::vector<PeerChunk> page;
  size_t page_at = 0;
  bool page_end = false;
  std::optional<ChunkId> own_after;  // own chunks up to here were compared
  size_t window = 0;  // chunks that wait for their slot, travel, or are to be repeated
  std::deque<std::pair<int64_t, ChunkId>> repeat;
};

struct Tombstone {
  Position position;
  int64_t at_ns = 0;
};

struct Replica::Impl {
  explicit Impl(TargetId target) : target_(target) {}

  // ---- replica.cc
  void step(int64_t now_ns, const Event& event, std::vector<Effect>& out);
  void on(const LoadChunk& event);
  void on(const LoadDedup& event);
  void on(const SetChain& event);
  void on(const SetLease& event);
  void on(const SetSpace& event);
  void on(const Tick& event);
  void leave_old_chain(Slot& slot);
  void enter_state();
  void set_local(LocalState state);
  void finish_lastsrv();
  void fail_disk(const Status& status);
  bool serving() const {
    return chain_.self == PublicState::kServing && local_ == LocalState::kUptodate;
  }
  bool lease_holds() const { return now_ns_ < lease_until_ns_; }
  bool closed() const { return local_ == LocalState::kOffline; }
  Slot& slot(const ChunkId& id);
  void sweep();
  OpId own_op() { return kOwnOp | next_op_++; }
  Status error(uint32_t code, const std::string& detail) const;
  Status chain_mismatch(ChainVersion requested) const;
  void reply(OpId op, Status status);
  void reply(OpId op, ChunkVersion version, uint32_t chunk_length, uint32_t checksum);
  void check(const ChunkId& id, const Slot& slot) const;
  template <typename T>
  void emit(T effect) {
    out_->push_back(std::move(effect));
  }

  // ---- client.cc, forwarded.cc, update.cc
  void on(const ClientUpdate& event);
  void on(const Forwarded& event);
  void on(const Staged& event);
  void on(const Committed& event);
  void on(const ForwardDone& event);
  Status admit(const ClientUpdate& event) const;
  Status admit(const Forwarded& event) const;
  bool answer_known(const ClientUpdate& event);
  void join(const ClientUpdate& event, const ChunkId& id);
  void join(const Forwarded& event, Update& update);
  void begin(const ClientUpdate& event);
  void begin(const Forwarded& event);
  void begin_update(const ChunkId& id, Slot& slot, Update update);
  bool replaces(const Forwarded& event, const Update& update) const;
  bool voids(const Forwarded& event, const Slot& slot) const;
  bool level(const ChunkId& id) const;
  bool driven() const;
  void drive(const ChunkId& id, Slot& slot);
  void stage(const ChunkId& id, Update& update);
  void try_forward(const ChunkId& id, Update& update);
  void commit(const ChunkId& id, Update& update);
  void committed(const ChunkId& id, Slot& slot);
  bool same_as_successor(const Update& update) const;
  void finish(const ChunkId& id, Slot& slot);
  void fail_update(Slot& slot, const Status& status);
  void end_waiters(Update& update, const Status& status);
  void end_waiter(Update& update, OpId& op, const Status& status);
  void forward_failed(const ChunkId& id, Slot& slot, const Status& status);
  void forget_update(Slot& slot);
  void refuse_queue(Slot& slot, const Status& status);
  void next(const ChunkId& id, Slot& slot);
  void expire(const ChunkId& id, Slot& slot);

  // ---- read.cc
  void on(const Read& event);
  void on(const ReadDone& event);
  void admit_read(OpId op, ReadOperation& read);
  void start_read(OpId op, ReadOperation& read);
  void start_waiting_reads(Slot& slot);
  void end_waiting_reads(Slot& slot, const Status& status);
  Status may_answer(const ReadOperation& read) const;

  // ---- repair.cc
  void on(const Damaged& event);
  void on(const Fetched& event);
  void note_damage(const ChunkId& id, bool committed);
  bool damaged(const ChunkId& id) const;
  bool holds_content(const ChunkId& id) const;
  const Peer* healer(const ChunkId& id) const;
  bool may_heal(const ChunkId& id) const;
  void repair(const ChunkId& id);
  void adopt(const ChunkId& id, Slot& slot, const Fetched& event);
  void heal(const ChunkId& id, Slot& slot, const Fetched& event);
  void healed(const ChunkId& id, Slot& slot, const Staged& event);
  void repair_failed(const ChunkId& id, Slot& slot, const Status& status);
  void make_unsound(const ChunkId& id, Slot& slot, bool base_damaged);
  void settle_unsound(const ChunkId& id, Slot& slot);
  void resolve_unsound(const ChunkId& id, Slot& slot);
  void void_unsound(const ChunkId& id, Slot& slot);
  void lose_unsound(const ChunkId& id, Slot& slot);
  void forget_unsound(const ChunkId& id, Slot& slot);
  void end_fetch(Slot& slot);
  void tick_repairs();

  // ---- resync.cc
  void on(const GrantResync& event);
  void on(const PeerChunks& event);
  void on(const PeerDone& event);
  void start_resync();
  void ask_page();
  bool may_send();
  void chunk_arrived(Slot& slot);
  void pump();
  bool next_difference();
  bool page_is_valid(const PeerChunks& event) const;
  void request_slot(const ChunkId& id);
  void begin_resync(const ChunkId& id, Slot& slot);
  void resync_forwarded(const ChunkId& id, Slot& slot, const ForwardDone& event);
  void resync_item_done();
  void tell_done();
  void tick_resync();
  bool old_updates_done() const;

  // ---- sync.cc
  void on(const SyncStart& event);
  void on(const SyncDone& event);
  Status admit_sync(TargetId from, ChainVersion chain_version) const;
  void try_begin_sync();
  void keep_rows(const std::vector<LoadDedup>& rows, bool replace);

  const TargetId target_;
  ChainView chain_;
  LocalState local_ = LocalState::kOnline;
  int64_t lease_until_ns_ = 0;
  bool full_ = false;

  ChunkMap chunks_;
  std::map<ChunkId, Slot> slots_;
  std::map<ChunkId, Tombstone> tombstones_;
  std::deque<std::pair<int64_t, ChunkId>> tombstone_ages_;
  ChunkVersion removed_floor_ = 0;  // highest version removed in this chain version
  DedupTable dedup_;
  std::map<UpdateIdentity, ChunkId> open_identities_;  // of pending and queued updates

  std::unordered_map<OpId, ChunkId> disk_ops_;     // Stage and Commit on their way
  std::unordered_map<OpId, ChunkId> forward_ops_;  // attempts that still count
  std::map<OpId, ReadOperation> reads_;
  std::optional<Resync> resync_;
  bool sync_begun_ = false;
  std::optional<SyncStart> waiting_start_;
  uint64_t resync_sent_ = 0, resync_skipped_ = 0, resync_bytes_ = 0;
  std::optional<int64_t> resync_budget_;  // bytes; none: not limited
  ResyncPace pace_;

  std::map<ChunkId, Damage> damaged_;
  // Up to here updates were answered with kMissingBase in this chain version, since they kept
  // damaged bytes.
  std::map<ChunkId, Position> refused_;
  std::unordered_map<OpId, ChunkId> fetch_ops_;  // attempts that still count
  uint64_t damage_found_ = 0, repaired_ = 0;

  OpId next_op_ = 1;
  int64_t now_ns_ = 0;
  std::vector<Effect>* out_ = nullptr;
  std::vector<ChunkId> touched_;
};

}  // namespace fs3::craq
