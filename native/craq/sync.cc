// The syncing replica's side of resync.
#include <utility>

#include "craq/impl.h"

namespace fs3::craq {

Status Replica::Impl::admit_sync(TargetId from, ChainVersion chain_version) const {
  if (chain_version != chain_.version) return chain_mismatch(chain_version);
  if (closed()) return error(kNotServing, "the disk failed");
  if (chain_.self != PublicState::kSyncing)
    return error(kNotServing, "the target is not syncing; refresh the routing");
  if (!chain_.predecessor || chain_.predecessor->target != from)
    return error(kBadRequest, "from_target: " + std::to_string(from) + " is not the predecessor");
  return {};
}

void Replica::Impl::on(const SyncStart& event) {
  if (event.op & kOwnOp) return;
  if (Status status = admit_sync(event.from, event.chain_version); !status.ok())
    return reply(event.op, std::move(status));
  if (sync_begun_) {
    keep_rows(event.dedup, false);
    return reply(event.op, 0, 0, 0);
  }
  if (waiting_start_)
    reply(waiting_start_->op, error(kBusy, "a later request to begin the sync took its place"));
  waiting_start_ = event;
  try_begin_sync();
}

// Only when nothing is on its way to the disk: what lands later would be missing in the list that
// the predecessor compares. Pending versions are from an earlier life; what was acknowledged of
// them the predecessor holds, and the rest was never acknowledged.
void Replica::Impl::try_begin_sync() {
  if (!waiting_start_ || !disk_ops_.empty()) return;
  SyncStart start = std::move(*waiting_start_);
  waiting_start_.reset();
  for (auto& [id, slot] : slots_) {
    touched_.push_back(id);
    if (!slot.update) continue;
    if (slot.update->pending()) emit(Discard{id});
    forget_update(slot);
    FS3_CHECK(slot.queue.empty() && slot.reads.empty());
  }
  sync_begun_ = true;
  dedup_.clear();
  keep_rows(start.dedup, true);
  reply(start.op, 0, 0, 0);
}

void Replica::Impl::keep_rows(const std::vector<LoadDedup>& rows, bool replace) {
  for (const LoadDedup& row : rows) dedup_.put(row);
  if (replace || !rows.empty()) emit(PutDedup{replace, rows});
}

void Replica::Impl::on(const SyncDone& event) {
  if (event.op & kOwnOp) return;
  Status status = admit_sync(event.from, event.chain_version);
  if (status.ok() && !sync_begun_)
    status = error(kNotServing, "the sync of this chain version did not begin here");
  if (!status.ok()) return reply(event.op, std::move(status));
  reply(event.op, 0, 0, 0);
  set_local(LocalState::kUptodate);
}

}  // namespace fs3::craq
