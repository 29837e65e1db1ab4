#include "craq/replica.h"

#include <cerrno>
#include <utility>

#include "craq/impl.h"

namespace fs3::craq {

Replica::Replica(TargetId target) : impl_(std::make_unique<Impl>(target)) {}
Replica::~Replica() = default;

void Replica::step(int64_t now_ns, const Event& event, std::vector<Effect>& out) {
  impl_->step(now_ns, event, out);
}

TargetId Replica::target() const { return impl_->target_; }
const ChainView& Replica::chain() const { return impl_->chain_; }
LocalState Replica::local() const { return impl_->local_; }
bool Replica::damaged(const ChunkId& chunk) const { return impl_->damaged(chunk); }
bool Replica::resyncing() const {
  return impl_->resync_ && impl_->resync_->step != Resync::Step::kDone;
}

ReplicaStatistics Replica::statistics() const {
  ReplicaStatistics out;
  out.chunks = impl_->chunks_.size();
  for (const auto& [id, slot] : impl_->slots_) {
    if (slot.update && slot.update->pending()) ++out.pending;
    out.queued += slot.queue.size();
    out.waiting_reads += slot.reads.size();
  }
  out.dedup_rows = impl_->dedup_.size();
  out.resync_sent = impl_->resync_sent_;
  out.resync_skipped = impl_->resync_skipped_;
  out.resync_bytes = impl_->resync_bytes_;
  out.resyncing = resyncing();
  out.resync_window = impl_->pace_.window();
  for (const auto& [id, damage] : impl_->damaged_) out.damaged += damage.committed;
  out.damage_found = impl_->damage_found_;
  out.repaired = impl_->repaired_;
  return out;
}

// ---- one step

void Replica::Impl::step(int64_t now_ns, const Event& event, std::vector<Effect>& out) {
  now_ns_ = now_ns;
  out_ = &out;
  std::visit([this](const auto& e) { on(e); }, event);
  if (resync_) pump();
  sweep();
  out_ = nullptr;
}

Slot& Replica::Impl::slot(const ChunkId& id) {
  touched_.push_back(id);
  return slots_[id];
}

void Replica::Impl::sweep() {
  for (const ChunkId& id : touched_) {
    auto it = slots_.find(id);
    if (it == slots_.end()) continue;
    check(id, it->second);
    if (it->second.empty()) slots_.erase(it);
  }
  touched_.clear();
}

void Replica::Impl::check(const ChunkId& id, const Slot& slot) const {
  FS3_CHECK(slot.busy() || slot.queue.empty());
  FS3_CHECK(!(slot.update && slot.resync_op) && !(slot.repair && slot.resync_op));
  FS3_CHECK(!(slot.update && slot.repair) || slot.update->unsound);
  FS3_CHECK(slot.update.has_value() || slot.reads.empty());
  if (!slot.update) return;
  const Update& update = *slot.update;
  FS3_CHECK(!update.commit_with_stage || update.commit_op == 0);
  FS3_CHECK(update.committed == Phase::kNone || update.staged == Phase::kDone);
  const Record* record = chunks_.find(id);
  bool skips =
      update.kind == UpdateKind::kReplace || update.kind == UpdateKind::kRemove || update.from_disk;
  if (record && update.pending() && !skips)
    FS3_CHECK(update.position.version == record->version + 1);
}

Status Replica::Impl::error(uint32_t code, const std::string& detail) const {
  return Status(code, "craq/target-" + std::to_string(target_), detail);
}

Status Replica::Impl::chain_mismatch(ChainVersion requested) const {
  return error(kChainVersionMismatch, "chain " + std::to_string(chain_.chain) + " is at version " +
                                          std::to_string(chain_.version) + ", request says " +
                                          std::to_string(requested));
}

void Replica::Impl::reply(OpId op, Status status) {
  FS3_CHECK(!(op & kOwnOp));
  emit(Reply{op, std::move(status), 0, 0, 0});
}

void Replica::Impl::reply(OpId op, ChunkVersion version, uint32_t chunk_length, uint32_t checksum) {
  FS3_CHECK(!(op & kOwnOp));
  emit(Reply{op, {}, version, chunk_length, checksum});
}

// ---- what the disk holds

void Replica::Impl::on(const LoadChunk& event) {
  FS3_CHECK(chain_.version == 0);
  if (event.committed > 0)
    chunks_.put(event.chunk,
                {event.committed, event.committed_chain, event.length, event.checksum});
  if (event.committed > 0 && event.damaged) note_damage(event.chunk, true);
  if (event.pending == 0) return;
  Update update;
  update.kind = event.pending_kind;
  update.position = {event.pending_chain, event.pending};
  update.length = update.chunk_length = event.pending_length;
  update.checksum = update.chunk_checksum = event.pending_checksum;
  update.identity = event.pending_identity;
  update.from_disk = true;
  update.whole = true;
  update.staged = Phase::kDone;
  if (!anonymous(update.identity)) open_identities_[update.identity] = event.chunk;
  slot(event.chunk).update = std::move(update);
}

void Replica::Impl::on(const LoadDedup& event) {
  FS3_CHECK(chain_.version == 0);
  dedup_.put(event);
}

// ---- the lease, the space, the clock

void Replica::Impl::on(const SetLease& event) { lease_until_ns_ = event.until_ns; }

void Replica::Impl::on(const SetSpace& event) { full_ = event.full; }

void Replica::Impl::on(const Tick&) {
  if (closed()) return;
  for (auto it = slots_.begin(); it != slots_.end(); ++it) {
    touched_.push_back(it->first);
    expire(it->first, it->second);
  }
  while (!tombstone_ages_.empty() && now_ns_ - tombstone_ages_.front().first > kTombstoneNs) {
    auto it = tombstones_.find(tombstone_ages_.front().second);
    if (it != tombstones_.end() && it->second.at_ns == tombstone_ages_.front().first)
      tombstones_.erase(it);
    tombstone_ages_.pop_front();
  }
  tick_repairs();
  tick_resync();
}

// ---- the chain

void Replica::Impl::on(const SetChain& event) {
  if (event.view.version <= chain_.version) return;
  chain_ = event.view;
  tombstones_.clear();
  tombstone_ages_.clear();
  removed_floor_ = 0;
  forward_ops_.clear();
  fetch_ops_.clear();
  refused_.clear();
  for (auto& [id, damage] : damaged_) {
    damage.retry_at_ns = damage.backoff_ns = 0;
    damage.below = damage.above = false;
  }
  resync_.reset();
  sync_begun_ = false;
  if (waiting_start_) reply(waiting_start_->op, chain_mismatch(waiting_start_->chain_version));
  waiting_start_.reset();
  if (closed()) return;
  enter_state();
  for (auto& [id, slot] : slots_) {
    touched_.push_back(id);
    leave_old_chain(slot);
    drive(id, slot);
    next(id, slot);
  }
  finish_lastsrv();
  if (serving() && chain_.successor && chain_.successor->syncing) start_resync();
}

// What mgmtd says of this target decides what this process believes of its content. A public state
// of SERVING is only ever given to a process that holds everything: at the birth of a chain, or
// after it reported kUptodate.
void Replica::Impl::enter_state() {
  bool has_pending = false;
  for (const auto& [id, slot] : slots_) has_pending = has_pending || slot.update.has_value();
  switch (chain_.self) {
    case PublicState::kServing:
      return set_local(LocalState::kUptodate);
    case PublicState::kLastsrv:
      if (has_pending) set_local(LocalState::kOnline);
      return;  // finish_lastsrv() decides the rest
    default:
      return set_local(LocalState::kOnline);
  }
}

void Replica::Impl::set_local(LocalState state) {
  if (local_ == state) return;
  local_ = state;
  emit(SetLocal{state});
}

// Everything that was promised or asked under the old chain version ends; the pending version stays
// and is driven under the new one.
void Replica::Impl::leave_old_chain(Slot& slot) {
  slot.resync_op = 0;
  chunk_arrived(slot);
  end_fetch(slot);
  std::deque<Queued> queue;
  std::swap(queue, slot.queue);
  for (const Queued& queued : queue) {
    if (const auto* update = std::get_if<ClientUpdate>(&queued.what)) {
      open_identities_.erase(update->identity);
      reply(update->op, chain_mismatch(update->chain_version));
    } else if (const auto* forwarded = std::get_if<Forwarded>(&queued.what)) {
      reply(forwarded->op, chain_mismatch(forwarded->chain_version));
    }
  }
  if (!serving())
    end_waiting_reads(slot, error(kNotServing, "the target stopped serving; refresh the routing"));
  std::erase_if(slot.reads, [this](OpId op) {
    auto it = reads_.find(op);
    if (!it->second.from) return false;
    reads_.erase(it);
    reply(op, error(kChainVersionMismatch, "the chain changed"));
    return true;
  });
  if (!slot.update) return;
  Update& update = *slot.update;
  update.forwarded = Phase::kNone;
  update.sent = false;
  update.forward_op = 0;
  update.peer_checksum.reset();
  // An unsound one, or one that changes nothing, has nothing whole to send; a successor has its
  // base, or says that it has not.
  update.whole = !update.unsound && !update.voided();
  update.failed = {};
  update.retry_at_ns = update.backoff_ns = 0;
  end_waiter(
      update, update.forward_op_in,
      error(kChainVersionMismatch, "the chain changed; send the update under its new version"));
  if (!serving())
    end_waiter(update, update.client_op,
               error(kNotServing, "the target stopped serving; refresh the routing"));
  else if (chain_.predecessor)
    end_waiter(update, update.client_op, error(kNotHead, "the head of the chain changed"));
  if (update.unsound && !serving()) forget_update(slot);  // others decide what became of it
}

// The last that served holds everything that was acknowledged, and whatever else it staged can only
// be newer: all of it commits before it may serve again.
void Replica::Impl::finish_lastsrv() {
  if (chain_.self != PublicState::kLastsrv || closed()) return;
  for (const auto& [id, slot] : slots_)
    if (slot.update) return;
  set_local(LocalState::kUptodate);
}

// A failed write or sync is final: nothing that this disk says counts any more.
void Replica::Impl::fail_disk(const Status& status) {
  Status refusal = error(kNotServing, "the disk failed: " + status.to_string());
  set_local(LocalState::kOffline);
  for (auto& [id, slot] : slots_) {
    touched_.push_back(id);
    if (slot.update) end_waiters(*slot.update, refusal);
    refuse_queue(slot, refusal);
    slot.queue.clear();
    end_waiting_reads(slot, refusal);
    forget_update(slot);
    slot.resync_op = 0;
    chunk_arrived(slot);
    slot.repair.reset();
  }
  if (waiting_start_) reply(waiting_start_->op, refusal);
  waiting_start_.reset();
  resync_.reset();
  disk_ops_.clear();
  forward_ops_.clear();
  fetch_ops_.clear();
  damaged_.clear();
  refused_.clear();
  open_identities_.clear();
}

}  // namespace fs3::craq
