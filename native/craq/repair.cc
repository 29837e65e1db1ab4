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
//   no neighbour can help, none was told of it    it fails with EIO
// The successor is asked for its settled version: after its answer nothing of this chunk is on its
// way below, but for what this replica itself forwards again. The predecessor waits for this one's
// answer to the same update, so it is asked for what it has committed at once.
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

void Replica::Impl::on(const Damaged& event) {
  if (closed()) return;
  auto it = slots_.find(event.chunk);
  if (event.pending) {
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
  repair(event.chunk);
}

void Replica::Impl::make_unsound(const ChunkId& id, Slot& slot, bool base_damaged) {
  slot.update->staged = Phase::kNone;
  slot.update->unsound = true;
  note_damage(id, base_damaged);
  // It is not staged here, so it was not acknowledged; whoever serves next decides.
  if (!holds_content(id)) return forget_unsound(id, slot);
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
    if (s.update) give_up_unsound(id, s);
    return;
  }
  s.repair = Repair{own_op(), false};
  fetch_ops_[s.repair->op] = id;
  bool settled = chain_.successor && peer->target == chain_.successor->target;
  emit(Fetch{s.repair->op, *peer, id, chain_.version, settled});
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
  if (!event.status.ok() || damage == damaged_.end()) return repair_failed(id, s);
  if (s.update && got == s.update->position) return adopt(id, s, event);
  if (got != (record ? record->position() : Position{})) return repair_failed(id, s);
  if (!damage->second.committed) {
    s.repair.reset();
    return settle_unsound(id, s);
  }
  if (event.length != record->length || event.checksum != record->checksum)
    return repair_failed(id, s);
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

// Of the bytes that the update keeps no sound copy is within reach.
void Replica::Impl::give_up_unsound(const ChunkId& id, Slot& slot) {
  Update& update = *slot.update;
  if (update.sent) return;  // a successor may hold it: its answer, or a chain change, will tell
  end_waiters(update, error(EIO,
                            "the bytes of this chunk on the disk do not match their checksum, "
                            "and no other replica is there to repair it from; bring another "
                            "replica back, or restore the file from a copy"));
  if (auto it = damaged_.find(id); !it->second.committed) damaged_.erase(it);
  forget_unsound(id, slot);
}

void Replica::Impl::repair_failed(const ChunkId& id, Slot& slot) {
  slot.repair.reset();
  if (auto it = damaged_.find(id); it != damaged_.end()) {
    it->second.backoff_ns = next_backoff(it->second.backoff_ns);
    it->second.retry_at_ns = now_ns_ + it->second.backoff_ns;
    it->second.ask_above = !it->second.ask_above;
  }
  if (!slot.update) next(id, slot);
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
