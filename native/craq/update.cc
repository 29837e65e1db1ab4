// One update, from its arrival to its answer.
//
//   arrive -> admit -> known already? -> wait for the chunk's slot -> begin -> drive ... -> finish
//
// drive() looks at what is done and begins what can begin now; every outcome calls it again:
//   stage    at once; at the end of the chain the same durable batch commits
//   forward  at once with the bytes of the request; whole from the disk, once staged, to a
//   successor
//            that may miss the base
//   commit   when staged here and the successor answered with the same checksum
//   finish   answer those who wait, take the next from the queue
#include <algorithm>
#include <cerrno>
#include <utility>

#include "craq/impl.h"

namespace fs3::craq {
namespace {

bool is_write(UpdateKind kind) {
  return kind == UpdateKind::kWrite || kind == UpdateKind::kReplace;
}

// Of the version before.
bool keeps_bytes(UpdateKind kind) {
  return kind == UpdateKind::kWrite || kind == UpdateKind::kTruncate;
}

}  // namespace

void Replica::Impl::begin_update(const ChunkId& id, Slot& slot, Update update) {
  FS3_CHECK(!slot.busy());
  update.began_in = chain_.version;
  if (!update.resync) update.mark = pace_.begin(now_ns_);
  if (!anonymous(update.identity)) open_identities_[update.identity] = id;
  slot.update = std::move(update);
  drive(id, slot);
}

bool Replica::Impl::driven() const {
  if (closed()) return false;
  return serving() || chain_.self == PublicState::kLastsrv ||
         (chain_.self == PublicState::kSyncing && sync_begun_);
}

void Replica::Impl::drive(const ChunkId& id, Slot& slot) {
  if (!slot.update || !slot.update->failed.ok()) return;
  Update& update = *slot.update;
  bool down = serving() && chain_.successor.has_value();
  if (driven() && update.staged == Phase::kNone && !update.unsound) stage(id, update);
  if (down && update.forwarded == Phase::kNone && now_ns_ >= update.retry_at_ns)
    try_forward(id, update);
  bool below = !down || update.forwarded == Phase::kDone;
  if (update.staged != Phase::kDone || !below) return;
  if (!same_as_successor(update))
    return fail_update(
        slot, error(kChecksumMismatch, "version " + text(update.position) +
                                           " has another checksum at the successor; compare the "
                                           "replicas of this chunk"));
  if (driven() && update.committed == Phase::kNone) commit(id, update);
  if (update.committed == Phase::kDone) finish(id, slot);
}

void Replica::Impl::stage(const ChunkId& id, Update& update) {
  FS3_CHECK(update.source != 0);
  update.staged = Phase::kRunning;
  update.stage_op = update.source;
  update.commit_with_stage = !(serving() && chain_.successor);
  disk_ops_[update.stage_op] = id;
  emit(Stage{update.stage_op, id, update.kind, update.position.version, update.position.chain,
             update.offset, update.length, update.checksum, update.identity,
             update.commit_with_stage, update.lost});
}

void Replica::Impl::try_forward(const ChunkId& id, Update& update) {
  const Peer& peer = *chain_.successor;
  if (peer.syncing && !(resync_ && resync_->open)) return;
  // Until then a crash may bring back the update whose place it takes.
  if (update.voided() && update.staged != Phase::kDone) return;
  const Record* record = chunks_.find(id);
  bool committed = update.committed == Phase::kDone;
  bool base_there = !peer.syncing || (record && record->level_in == chain_.version);
  bool as_is = update.kind == UpdateKind::kRemove || update.kind == UpdateKind::kReplace ||
               (base_there && !update.whole && !committed);
  bool bytes_here = !is_write(update.kind) || update.source != 0;
  bool from_disk = !as_is || !bytes_here;
  bool moving = update.staged != Phase::kDone || update.committed == Phase::kRunning;
  if (from_disk && moving) return;
  Forward forward;
  forward.op = update.forward_op = own_op();
  forward.to = peer;
  forward.chunk = id;
  forward.version = update.position.version;
  forward.update_chain = update.position.chain;
  forward.chain_version = chain_.version;
  forward.chunk_size = update.chunk_size;
  forward.identity = update.identity;
  forward.resync = false;
  forward.lost = update.lost;
  if (from_disk) {
    forward.kind = UpdateKind::kReplace;
    forward.length = update.chunk_length;
    forward.checksum = update.chunk_checksum;
    forward.bytes = committed ? Forward::Bytes::kCommitted : Forward::Bytes::kPending;
    if (update.lost) forward.bytes = Forward::Bytes::kNone;
  } else {
    forward.kind = update.kind;
    forward.offset = update.offset;
    forward.length = update.length;
    forward.checksum = update.checksum;
    bool bytes = is_write(update.kind) && !update.lost;
    forward.bytes = bytes ? Forward::Bytes::kOfOp : Forward::Bytes::kNone;
    if (bytes) forward.source = update.source;
  }
  update.forwarded = Phase::kRunning;
  update.sent = true;
  update.forward_was_whole = from_disk;
  forward_ops_[forward.op] = id;
  emit(std::move(forward));
}

// Not synced where a successor holds the version durably: a power loss here leaves it pending, and
// pending versions of a replica that comes back are either replaced by resync or committed.
void Replica::Impl::commit(const ChunkId& id, Update& update) {
  update.committed = Phase::kRunning;
  update.commit_op = own_op();
  disk_ops_[update.commit_op] = id;
  emit(Commit{update.commit_op, id, update.position.version, !(serving() && chain_.successor)});
}

void Replica::Impl::on(const Staged& event) {
  auto op = disk_ops_.find(event.op);
  if (op == disk_ops_.end()) return;
  ChunkId id = op->second;
  Slot& s = slot(id);
  if (s.repair && s.repair->op == event.op) return healed(id, s, event);
  if (!s.update || s.update->stage_op != event.op || s.update->staged != Phase::kRunning) return;
  disk_ops_.erase(op);
  if (event.status.code() == kChecksumMismatch && keeps_bytes(s.update->kind)) {
    make_unsound(id, s, true);
    try_begin_sync();
    return finish_lastsrv();
  }
  if (!event.status.ok()) return fail_disk(event.status);
  Update& update = *s.update;
  if (update.kind == UpdateKind::kReplace && event.checksum != update.checksum)
    return fail_disk(error(kChecksumMismatch, "staged bytes have another checksum than sent"));
  update.staged = Phase::kDone;
  bool removed = update.kind == UpdateKind::kRemove;
  update.chunk_length = removed ? 0 : event.chunk_length;
  update.chunk_checksum = removed ? 0 : event.checksum;
  if (update.commit_with_stage) committed(id, s);
  drive(id, s);
  try_begin_sync();
  finish_lastsrv();
}

void Replica::Impl::on(const Committed& event) {
  auto op = disk_ops_.find(event.op);
  if (op == disk_ops_.end()) return;
  ChunkId id = op->second;
  Slot& s = slot(id);
  if (!s.update || s.update->commit_op != event.op || s.update->committed != Phase::kRunning)
    return;
  disk_ops_.erase(op);
  if (!event.status.ok()) return fail_disk(event.status);
  committed(id, s);
  drive(id, s);
  try_begin_sync();
  finish_lastsrv();
}

// The disk now holds the update as the committed version.
void Replica::Impl::committed(const ChunkId& id, Slot& slot) {
  Update& update = *slot.update;
  update.committed = Phase::kDone;
  bool known = damaged(id);
  damaged_.erase(id);
  refused_.erase(id);
  if (update.lost) note_damage(id, true);
  if (update.lost && known) --damage_found_;  // the same as before
  const Record* before = chunks_.find(id);
  bool here_level = chain_.self == PublicState::kSyncing && update.began_in == chain_.version;
  bool peer_level =
      before && before->level_in == chain_.version && update.forwarded == Phase::kDone;
  ChainVersion level_in = here_level || peer_level ? chain_.version : 0;
  if (update.kind != UpdateKind::kRemove) {
    chunks_.put(id, {update.position.version, update.position.chain, update.chunk_length,
                     update.chunk_checksum, level_in});
    tombstones_.erase(id);
  } else {
    chunks_.erase(id);
    if (update.began_in == chain_.version) {
      tombstones_[id] = {update.position, now_ns_};
      tombstone_ages_.emplace_back(now_ns_, id);
    }
    if (update.position.chain == chain_.version)
      removed_floor_ = std::max(removed_floor_, update.position.version);
  }
  dedup_.put(
      {update.identity, id, update.position.version, update.chunk_length, update.chunk_checksum});
  start_waiting_reads(slot);
}

bool Replica::Impl::same_as_successor(const Update& update) const {
  if (!update.peer_checksum || update.kind == UpdateKind::kRemove) return true;
  return *update.peer_checksum == update.chunk_checksum;
}

void Replica::Impl::finish(const ChunkId& id, Slot& slot) {
  Update update = *slot.update;
  forget_update(slot);
  if (!update.resync && update.began_in == chain_.version)
    pace_.end(now_ns_, ResyncPace::kUpdate, update.mark);
  bool to_syncing = serving() && chain_.successor && chain_.successor->syncing;
  if (Record* record = chunks_.find(id); record && to_syncing) record->level_in = chain_.version;
  Status late = error(kLeaseExpired, "the lease ended; the outcome is for the next head to tell");
  if (update.client_op && !lease_holds())
    reply(update.client_op, late);
  else if (update.client_op)
    reply(update.client_op, update.position.version, update.chunk_length, update.chunk_checksum);
  if (update.forward_op_in)
    reply(update.forward_op_in, update.position.version, update.chunk_length,
          update.chunk_checksum);
  next(id, slot);
}

void Replica::Impl::next(const ChunkId& id, Slot& slot) {
  if (!slot.busy()) repair(id);
  while (!slot.busy() && !slot.queue.empty()) {
    Queued queued = std::move(slot.queue.front());
    slot.queue.pop_front();
    if (const auto* update = std::get_if<ClientUpdate>(&queued.what)) {
      begin(*update);
    } else if (const auto* forwarded = std::get_if<Forwarded>(&queued.what)) {
      begin(*forwarded);
    } else {
      begin_resync(id, slot);
    }
  }
}

// ---- the successor's answer

void Replica::Impl::on(const ForwardDone& event) {
  auto op = forward_ops_.find(event.op);
  if (op == forward_ops_.end()) return;
  ChunkId id = op->second;
  forward_ops_.erase(op);
  Slot& s = slot(id);
  if (s.resync_op == event.op) return resync_forwarded(id, s, event);
  if (!s.update || s.update->forward_op != event.op) return;
  Update& update = *s.update;
  update.forward_op = 0;
  if (!event.status.ok()) return forward_failed(id, s, event.status);
  update.forwarded = Phase::kDone;
  update.peer_checksum = event.checksum;
  drive(id, s);
}

// A successor that does not answer is asked again until the chain changes; one that holds something
// else ends the update with an error that stands until then.
void Replica::Impl::forward_failed(const ChunkId& id, Slot& slot, const Status& status) {
  Update& update = *slot.update;
  update.forwarded = Phase::kNone;
  switch (status.code()) {
    case kMissingBase:
      if (update.forward_was_whole) break;
      update.whole = true;
      return update.unsound ? resolve_unsound(id, slot) : drive(id, slot);
    case kChecksumMismatch:
    case kStaleUpdate:
    case kBadRequest:
      return fail_update(slot, status);
    case ENOSPC:
      end_waiters(update, status);
      break;
    default:
      break;
  }
  update.backoff_ns =
      update.backoff_ns == 0 ? kBackoffFirstNs : std::min(update.backoff_ns * 2, kBackoffLastNs);
  update.retry_at_ns = now_ns_ + update.backoff_ns;
}

// ---- endings

void Replica::Impl::fail_update(Slot& slot, const Status& status) {
  slot.update->failed = status;
  end_waiters(*slot.update, status);
  refuse_queue(slot, status);
}

void Replica::Impl::end_waiters(Update& update, const Status& status) {
  end_waiter(update, update.client_op, status);
  end_waiter(update, update.forward_op_in, status);
}

void Replica::Impl::end_waiter(Update& update, OpId& op, const Status& status) {
  if (op == 0) return;
  reply(op, status);
  if (update.source == op) update.source = 0;
  op = 0;
}

void Replica::Impl::forget_update(Slot& slot) {
  if (!slot.update) return;
  auto open = open_identities_.find(slot.update->identity);
  if (open != open_identities_.end()) open_identities_.erase(open);
  if (slot.update->forward_op) forward_ops_.erase(slot.update->forward_op);
  end_fetch(slot);
  slot.update.reset();
}

void Replica::Impl::refuse_queue(Slot& slot, const Status& status) {
  std::deque<Queued> queue;
  std::swap(queue, slot.queue);
  for (Queued& queued : queue) {
    if (const auto* update = std::get_if<ClientUpdate>(&queued.what)) {
      open_identities_.erase(update->identity);
      reply(update->op, status);
    } else if (const auto* forwarded = std::get_if<Forwarded>(&queued.what)) {
      reply(forwarded->op, status);
    } else {
      slot.queue.push_back(std::move(queued));
    }
  }
}

// What has waited too long here ends with an answer; the update itself goes on.
void Replica::Impl::expire(const ChunkId& id, Slot& slot) {
  Status lease = error(kLeaseExpired, "no heartbeat was acknowledged in time");
  Status late = error(kTimedOut, "the chain did not answer in time; the outcome is not known");
  // Those who wait for an unsound update bring the bytes from which it will be staged.
  if (slot.update && !slot.update->unsound) {
    Update& update = *slot.update;
    if (update.client_op && !lease_holds()) end_waiter(update, update.client_op, lease);
    if (now_ns_ - update.client_since_ns > kUpdateWaitNs)
      end_waiter(update, update.client_op, late);
    if (now_ns_ - update.forward_since_ns > kUpdateWaitNs)
      end_waiter(update, update.forward_op_in, late);
  }
  for (auto it = slot.queue.begin(); it != slot.queue.end();) {
    const auto* update = std::get_if<ClientUpdate>(&it->what);
    const auto* forwarded = std::get_if<Forwarded>(&it->what);
    bool old = now_ns_ - it->since_ns > kUpdateWaitNs;
    if (update && (old || !lease_holds())) {
      open_identities_.erase(update->identity);
      reply(update->op, lease_holds() ? error(kBusy, "waited too long for the chunk") : lease);
    } else if (forwarded && old) {
      reply(forwarded->op, error(kBusy, "waited too long for the chunk"));
    } else {
      ++it;
      continue;
    }
    it = slot.queue.erase(it);
  }
  std::erase_if(slot.reads, [&](OpId op) {
    Status refusal = may_answer(reads_.at(op));
    if (refusal.ok() && now_ns_ < reads_.at(op).deadline_ns) return false;
    reply(op, refusal.ok() ? error(kBusy, "the pending version did not commit in time") : refusal);
    reads_.erase(op);
    return true;
  });
  drive(id, slot);
}

}  // namespace fs3::craq
