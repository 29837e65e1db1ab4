// Damaged bytes: a version that is known here, but cannot be read from the disk any more.
//
// Position names content for ever, so any neighbour's bytes of the same position are the right
// ones; a repair asks one neighbour for the whole chunk and stages it in place of the damaged
// version. It holds the chunk's slot: updates wait until it ended, or until the neighbour failed.
//
// An update that keeps bytes of a damaged version cannot be staged; it is unsound. It must not be
// forgotten while others may hold it, or this replica would fall behind them without knowing. So it
// stays in its slot until it is known what became of it:
//   the neighbour has the update itself           its bytes are staged as the pending version
//   the neighbour has the committed version only  that is healed; then the update is staged again
//                                                 from its request's bytes, or forgotten when these
//                                                 went with an earlier chain version
//   nobody below can stage it or has its base     resolve_unsound()
// The successor is asked for its settled version: after its answer nothing of this chunk is on its
// way below, but for what this replica itself forwards again. The predecessor waits for this one's
// answer to the same update, so it is asked for what it has committed at once.
//
// When every copy is damaged, damage is what there is to agree on. A replica that cannot stage an
// update answers kMissingBase, and forgets it: a predecessor that could sends the chunk whole, one
// that could not passes the answer on. Such an answer stands for this chain version, whatever is
// healed later: late copies of the update are refused. At the head the update fails with kDamaged.
// Where a successor was told of it, its position is taken: a late copy of it may still be on its
// way, and no other update may have its name. So in its place the chunk gets a version that changes
// nothing, and whose bytes stay damaged. Bytes that can be read stay readable, and what brings the
// chunk whole (an overwrite, a cut to nothing, a removal, a replica that comes back with it) ends
// the damage.
#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "craq/impl.h"

namespace fs3::craq {

bool Replica::Impl::damaged(const ChunkId& id) const {
  auto it = damaged_.find(id);
  return it != damaged_.end() && it->second.committed;
}

// Positions of a syncing replica count once its sync began: what it lists is what it has.
bool Replica::Impl::holds_content(const ChunkId& id) const {
  if (serving()) return true;
  return chain_.self == PublicState::kSyncing && sync_begun_ && !closed() && level(id);
}

void Replica::Impl::note_damage(const ChunkId& id, bool committed) {
  Damage& damage = damaged_[id];
  if (committed && !damage.committed) ++damage_found_;
  damage.committed = damage.committed || committed;
}

// False: all who could have sound bytes said that theirs are damaged.
bool Replica::Impl::may_heal(const ChunkId& id) const {
  auto it = damaged_.find(id);
  if (it == damaged_.end() || !healer(id)) return false;
  bool below = serving() && chain_.successor && !it->second.below;
  if (below && chain_.successor->syncing) {
    const Record* record = chunks_.find(id);
    below = record && record->level_in == chain_.version;
  }
  return below || (chain_.predecessor && !it->second.above);
}

void Replica::Impl::on(const Damaged& event) {
  if (closed()) return;
  auto it = slots_.find(event.chunk);
  if (event.pending) {
    // One that changes nothing is as damaged as the version before; one that came damaged is.
    if (it != slots_.end() && it->second.update && it->second.update->lost) return;
    // Where this replica may not ask, its pending version may be the last copy: it stays.
    bool here = holds_content(event.chunk) && it != slots_.end() && it->second.update &&
                it->second.update->position.version == event.version &&
                it->second.update->kind != UpdateKind::kRemove &&
                it->second.update->staged == Phase::kDone &&
                it->second.update->committed == Phase::kNone;
    if (!here) return;
    emit(Discard{event.chunk});
    return make_unsound(event.chunk, slot(event.chunk), false);
  }
  const Record* record = chunks_.find(event.chunk);
  if (!record || record->version != event.version) return;
  note_damage(event.chunk, true);
  damaged_[event.chunk].unreadable = true;
  repair(event.chunk);
}

void Replica::Impl::make_unsound(const ChunkId& id, Slot& slot, bool base_damaged) {
  slot.update->staged = Phase::kNone;
  slot.update->unsound = true;
  note_damage(id, base_damaged);
  damaged_[id].retry_at_ns = 0;  // somebody waits
  // It is not staged here, so it was not acknowledged; whoever serves next decides.
  if (!holds_content(id)) return forget_unsound(id, slot);
  // The successor may have said before that it cannot make it.
  if (slot.update->sent && slot.update->whole) return resolve_unsound(id, slot);
  repair(id);
  drive(id, slot);
}

// Who may have the bytes: the successor unless it is not level yet, else the predecessor. An
// unsound update is for the successor to tell of, when there is one.
const Peer* Replica::Impl::healer(const ChunkId& id) const {
  const Record* record = chunks_.find(id);
  auto it = slots_.find(id);
  const Update* update = it != slots_.end() && it->second.update ? &*it->second.update : nullptr;
  bool below = serving() && chain_.successor.has_value();
  if (below && chain_.successor->syncing)
    below = (record && record->level_in == chain_.version) ||
            (update && update->forwarded == Phase::kDone);
  auto damage = damaged_.find(id);
  bool ask_above = damage != damaged_.end() && damage->second.ask_above && !update;
  if (below && !(ask_above && chain_.predecessor)) return &*chain_.successor;
  return chain_.predecessor ? &*chain_.predecessor : nullptr;
}

// Begins the repair of a chunk that needs it, as soon as it can begin.
void Replica::Impl::repair(const ChunkId& id) {
  auto damage = damaged_.find(id);
  if (damage == damaged_.end() || !holds_content(id) || now_ns_ < damage->second.retry_at_ns)
    return;
  Slot& s = slot(id);
  bool held = s.update && !s.update->unsound;
  if (held || s.resync_op || s.repair) return;
  const Peer* peer = healer(id);
  if (!peer) {
    if (s.update) resolve_unsound(id, s);
    return;
  }
  bool below = chain_.successor && peer->target == chain_.successor->target;
  s.repair = Repair{own_op(), !below, false};
  fetch_ops_[s.repair->op] = id;
  emit(Fetch{s.repair->op, *peer, id, chain_.version, below});
}

void Replica::Impl::on(const Fetched& event) {
  auto op = fetch_ops_.find(event.op);
  if (op == fetch_ops_.end()) return;
  ChunkId id = op->second;
  fetch_ops_.erase(op);
  Slot& s = slot(id);
  FS3_CHECK(s.repair && s.repair->op == event.op && !s.repair->staging);
  auto damage = damaged_.find(id);
  const Record* record = chunks_.find(id);
  Position got{event.update_chain, event.version};
  if (!event.status.ok() || damage == damaged_.end()) return repair_failed(id, s, event.status);
  Status other = error(kBusy, "the neighbour has other content");
  if (s.update && got == s.update->position) return adopt(id, s, event);
  if (got != (record ? record->position() : Position{})) return repair_failed(id, s, other);
  if (!damage->second.committed) {
    s.repair.reset();
    return settle_unsound(id, s);
  }
  if (event.length != record->length || event.checksum != record->checksum)
    return repair_failed(id, s, other);
  heal(id, s, event);
}

// The unsound update as the neighbour made it becomes the pending version here.
void Replica::Impl::adopt(const ChunkId& id, Slot& slot, const Fetched& event) {
  Update& update = *slot.update;
  slot.repair.reset();
  update.unsound = false;
  update.staged = Phase::kRunning;
  update.stage_op = event.op;
  update.commit_with_stage = !(serving() && chain_.successor);
  disk_ops_[event.op] = id;
  ++repaired_;
  emit(Stage{event.op, id, UpdateKind::kReplace, update.position.version, update.position.chain, 0,
             event.length, event.checksum, update.identity, update.commit_with_stage});
}

void Replica::Impl::heal(const ChunkId& id, Slot& slot, const Fetched& event) {
  slot.repair->staging = true;
  disk_ops_[event.op] = id;
  emit(Stage{event.op,
             id,
             UpdateKind::kReplace,
             event.version,
             event.update_chain,
             0,
             event.length,
             event.checksum,
             {},
             true});
}

void Replica::Impl::healed(const ChunkId& id, Slot& slot, const Staged& event) {
  disk_ops_.erase(event.op);
  if (!event.status.ok()) return fail_disk(event.status);
  const Record* record = chunks_.find(id);
  FS3_CHECK(record && record->checksum == event.checksum && record->length == event.chunk_length);
  ++repaired_;
  damaged_.erase(id);
  slot.repair.reset();
  if (slot.update)
    settle_unsound(id, slot);
  else
    next(id, slot);
  try_begin_sync();
  finish_lastsrv();
}

// Nobody below holds the update, and the committed version is sound.
void Replica::Impl::settle_unsound(const ChunkId& id, Slot& slot) {
  Update& update = *slot.update;
  FS3_CHECK(update.unsound && update.staged == Phase::kNone);
  if (auto it = damaged_.find(id); it != damaged_.end() && !it->second.committed)
    damaged_.erase(it);
  if (update.source != 0) {
    update.unsound = false;
    return drive(id, slot);
  }
  end_waiters(update, error(kBusy, "the bytes of the update are gone; send it again"));
  forget_unsound(id, slot);
}

// Reads that wait for it read what is committed.
void Replica::Impl::forget_unsound(const ChunkId& id, Slot& slot) {
  forget_update(slot);
  start_waiting_reads(slot);
  next(id, slot);
}

// Nobody below holds the update, or the bytes that it keeps.
void Replica::Impl::resolve_unsound(const ChunkId& id, Slot& slot) {
  if (slot.repair && slot.repair->staging) return;  // then it is staged
  end_fetch(slot);
  Update& update = *slot.update;
  auto damage = damaged_.find(id);
  bool base_damaged = damage != damaged_.end() && damage->second.committed;
  if (!base_damaged && update.source != 0) return settle_unsound(id, slot);
  if (!chain_.predecessor && update.sent && chunks_.find(id)) return void_unsound(id, slot);
  if (update.forward_op_in) {
    refused_[id] = update.position;
    end_waiter(update, update.forward_op_in,
               error(kMissingBase, "the bytes that the update keeps are damaged here"));
  }
  end_waiters(update, error(kDamaged,
                            "the bytes of this chunk do not match their checksum in any replica "
                            "within reach; bring another replica back, write the chunk anew, or "
                            "restore the file from a copy"));
  if (damage != damaged_.end() && !base_damaged) damaged_.erase(damage);
  forget_unsound(id, slot);
}

// A version that changes nothing takes the place of the update: a cut to the length that is there.
void Replica::Impl::void_unsound(const ChunkId& id, Slot& slot) {
  Update& update = *slot.update;
  if (auto open = open_identities_.find(update.identity); open != open_identities_.end())
    open_identities_.erase(open);
  end_waiters(update, error(kDamaged,
                            "the bytes of this chunk do not match their checksum in any replica; "
                            "bring another replica back, write the chunk anew, or restore the file "
                            "from a copy"));
  update.kind = UpdateKind::kTruncate;
  update.identity = {};
  update.offset = 0;
  update.length = chunks_.find(id)->length;
  update.checksum = 0;
  update.source = own_op();
  update.unsound = update.whole = false;
  update.lost = true;
  update.forwarded = Phase::kNone;
  update.retry_at_ns = update.backoff_ns = 0;
  drive(id, slot);
}

// The successor has committed the update, and its copy rotted since: what this replica has of it is
// its name. Whoever has the bytes (a predecessor made it from a sound base) heals it later.
void Replica::Impl::lose_unsound(const ChunkId& id, Slot& slot) {
  Update& update = *slot.update;
  FS3_CHECK(update.peer_checksum.has_value());
  const Record* record = chunks_.find(id);
  uint32_t length = record ? record->length : 0;
  if (update.kind == UpdateKind::kWrite && update.length > 0)
    length = std::max(length, update.offset + update.length);
  else if (update.kind != UpdateKind::kWrite)
    length = update.length;
  if (update.from_disk) length = update.chunk_length;
  update.kind = UpdateKind::kReplace;
  update.offset = 0;
  update.length = length;
  update.checksum = *update.peer_checksum;
  update.source = own_op();
  update.unsound = false;
  update.lost = true;
  drive(id, slot);
}

void Replica::Impl::repair_failed(const ChunkId& id, Slot& slot, const Status& status) {
  bool above = slot.repair->above;
  slot.repair.reset();
  if (auto it = damaged_.find(id); it != damaged_.end()) {
    Damage& damage = it->second;
    (above ? damage.above : damage.below) = status.code() == kDamaged;
    damage.ask_above = !damage.ask_above;
    damage.backoff_ns = may_heal(id) ? next_backoff(damage.backoff_ns) : kLostBackoffNs;
    damage.retry_at_ns = now_ns_ + damage.backoff_ns;
  }
  if (!slot.update) return next(id, slot);
  Update& update = *slot.update;
  if (!update.unsound || status.code() != kDamaged) return;
  if (!update.sent) return resolve_unsound(id, slot);
  // Else what was sent below is answered from there.
  if (update.forwarded == Phase::kDone) lose_unsound(id, slot);
}

// A Fetch that was asked for under other circumstances; what it brings is ignored.
void Replica::Impl::end_fetch(Slot& slot) {
  if (!slot.repair || slot.repair->staging) return;
  fetch_ops_.erase(slot.repair->op);
  slot.repair.reset();
}

void Replica::Impl::tick_repairs() {
  if (damaged_.empty()) return;
  std::vector<ChunkId> due;
  for (const auto& [id, damage] : damaged_)
    if (now_ns_ >= damage.retry_at_ns) due.push_back(id);
  for (const ChunkId& id : due) repair(id);
}

}  // namespace fs3::craq
