// The predecessor's side of resync: compare what the successor lists with what is here, page by
// page in order of chunk ids, and send what differs, whole.
//
// A chunk that is sent holds its slot, so updates and the transfer of one chunk never overlap.
// Chunks that are written meanwhile go to the successor with the update; `level_in` marks them.
#include <algorithm>
#include <utility>

#include "craq/impl.h"

namespace fs3::craq {

void Replica::Impl::start_resync() {
  resync_.emplace();
  resync_->peer = *chain_.successor;
  pace_.begin_resync(now_ns_);
  ask_page();
}

void Replica::Impl::on(const GrantResync& event) {
  int64_t debt = std::min<int64_t>(resync_budget_.value_or(0), 0);
  resync_budget_ = debt + static_cast<int64_t>(event.bytes);
}

void Replica::Impl::ask_page() {
  Resync& r = *resync_;
  r.op = own_op();
  AskPeerChunks ask{r.op, r.peer, chain_.version, r.page_after, {}};
  if (!r.page_after) ask.dedup = dedup_.rows();
  emit(std::move(ask));
}

bool Replica::Impl::page_is_valid(const PeerChunks& event) const {
  std::optional<ChunkId> last = resync_->page_after;
  for (const PeerChunk& chunk : event.chunks) {
    if (last && chunk.chunk <= *last) return false;
    last = chunk.chunk;
  }
  return event.end || !event.chunks.empty();
}

void Replica::Impl::on(const PeerChunks& event) {
  if (!resync_ || resync_->step != Resync::Step::kAsk || resync_->op != event.op) return;
  Resync& r = *resync_;
  r.op = 0;
  if (!event.status.ok() || !page_is_valid(event)) {
    r.backoff_ns = next_backoff(r.backoff_ns);
    r.retry_at_ns = now_ns_ + r.backoff_ns;
    return;
  }
  r.backoff_ns = 0;
  r.page = event.chunks;
  r.page_at = 0;
  r.page_end = event.end;
  r.step = Resync::Step::kMerge;
  if (!std::exchange(r.open, true))
    for (auto& [id, slot] : slots_) {
      touched_.push_back(id);
      drive(id, slot);
    }
}

bool Replica::Impl::may_send() {
  return pace_.may_send(now_ns_) && (!resync_budget_ || *resync_budget_ > 0);
}

void Replica::Impl::chunk_arrived(Slot& slot) {
  if (slot.resync_length > 0) pace_.arrived(now_ns_, slot.resync_length);
  slot.resync_length = 0;
}

// Starts transfers until the window is full, then asks for the next page, then says done.
void Replica::Impl::pump() {
  Resync& r = *resync_;
  if (r.step != Resync::Step::kMerge) return;
  while (r.window < kResyncWindow && may_send() && next_difference()) {
  }
  if (r.window > 0 || !may_send()) return;
  if (!r.page_end) {
    r.page_after = r.page.back().chunk;
    r.page.clear();
    r.step = Resync::Step::kAsk;
    return ask_page();
  }
  r.step = Resync::Step::kTell;
  tell_done();
}

// One step of the merge; false at the end of the page. A chunk whose slot is busy counts as
// different: it is looked at again when its turn comes.
bool Replica::Impl::next_difference() {
  Resync& r = *resync_;
  const PeerChunk* peer = r.page_at < r.page.size() ? &r.page[r.page_at] : nullptr;
  std::optional<ChunkId> own = chunks_.next(r.own_after);
  if (own && !r.page_end && *own > r.page.back().chunk) own.reset();
  if (!own && !peer) return false;
  ChunkId id = own && (!peer || *own < peer->chunk) ? *own : peer->chunk;
  r.own_after = id;
  bool both = own && peer && *own == peer->chunk;
  if (peer && peer->chunk == id) ++r.page_at;
  if (both) {
    Record& record = *chunks_.find(id);
    bool same = !peer->pending && peer->version == record.version &&
                peer->chain_version == record.chain && peer->length == record.length &&
                peer->checksum == record.checksum;
    auto it = slots_.find(id);
    if (same && (it == slots_.end() || !it->second.busy())) {
      record.level_in = chain_.version;
      ++resync_skipped_;
      return true;
    }
  }
  ++r.window;
  request_slot(id);
  return true;
}

void Replica::Impl::request_slot(const ChunkId& id) {
  Slot& s = slot(id);
  if (s.busy() || !s.queue.empty()) {
    s.queue.push_back({ResyncItem{}, now_ns_});
    return;
  }
  begin_resync(id, s);
}

// The slot is free. An update that went through it in this chain version may have made the chunk
// level already.
void Replica::Impl::begin_resync(const ChunkId& id, Slot& slot) {
  if (!resync_) return;
  const Record* record = chunks_.find(id);
  bool level = record ? record->level_in == chain_.version : tombstones_.contains(id);
  if (level) {
    ++resync_skipped_;
    return resync_item_done();
  }
  // It waits for its repair. When nobody has a sound copy, the disk may still be able to read it;
  // else the successor learns that it is damaged, so that the chain becomes whole.
  if (record && damaged(id) && may_heal(id)) {
    resync_->repeat.emplace_back(now_ns_ + kBackoffLastNs / 4, id);
    return;
  }
  bool lost = record && damaged(id) && damaged_[id].unreadable;
  slot.resync_op = own_op();
  forward_ops_[slot.resync_op] = id;
  Forward forward;
  forward.op = slot.resync_op;
  forward.to = resync_->peer;
  forward.chunk = id;
  forward.chain_version = chain_.version;
  forward.resync = true;
  if (record) {
    forward.kind = UpdateKind::kReplace;
    forward.version = record->version;
    forward.update_chain = record->chain;
    forward.length = record->length;
    forward.checksum = record->checksum;
    slot.resync_length = lost ? 0 : record->length;
    pace_.sent(now_ns_, slot.resync_length);
    resync_bytes_ += slot.resync_length;
    if (resync_budget_) *resync_budget_ -= slot.resync_length;
    forward.bytes = lost ? Forward::Bytes::kNone : Forward::Bytes::kCommitted;
    forward.lost = lost;
  } else {
    forward.kind = UpdateKind::kRemove;
    forward.bytes = Forward::Bytes::kNone;
  }
  emit(std::move(forward));
}

void Replica::Impl::resync_forwarded(const ChunkId& id, Slot& slot, const ForwardDone& event) {
  slot.resync_op = 0;
  chunk_arrived(slot);
  bool ok = event.status.ok();
  if (Record* record = chunks_.find(id); record && ok) {
    ok = event.checksum == record->checksum;
    if (ok) record->level_in = chain_.version;
  }
  if (ok) {
    ++resync_sent_;
    resync_item_done();
  } else {
    resync_->repeat.emplace_back(now_ns_ + kBackoffLastNs / 4, id);
  }
  next(id, slot);
}

void Replica::Impl::resync_item_done() {
  FS3_CHECK(resync_ && resync_->window > 0);
  --resync_->window;
}

// An update that was on its way when this chain version began may be committed and read here while
// the successor does not have it; the successor may serve only after it got it.
bool Replica::Impl::old_updates_done() const {
  for (const auto& [id, slot] : slots_)
    if (slot.update && slot.update->began_in != chain_.version) return false;
  return true;
}

void Replica::Impl::tell_done() {
  Resync& r = *resync_;
  if (!old_updates_done()) {
    r.retry_at_ns = now_ns_ + kBackoffFirstNs;
    return;
  }
  r.op = own_op();
  emit(TellPeerDone{r.op, r.peer, chain_.version});
}

void Replica::Impl::on(const PeerDone& event) {
  if (!resync_ || resync_->step != Resync::Step::kTell || resync_->op != event.op) return;
  Resync& r = *resync_;
  r.op = 0;
  if (event.status.ok()) {
    r.step = Resync::Step::kDone;
    return;
  }
  r.backoff_ns = next_backoff(r.backoff_ns);
  r.retry_at_ns = now_ns_ + r.backoff_ns;
}

void Replica::Impl::tick_resync() {
  if (!resync_) return;
  Resync& r = *resync_;
  bool due = r.op == 0 && now_ns_ >= r.retry_at_ns;
  if (r.step == Resync::Step::kAsk && due) ask_page();
  if (r.step == Resync::Step::kTell && due) tell_done();
  while (!r.repeat.empty() && r.repeat.front().first <= now_ns_) {
    ChunkId id = r.repeat.front().second;
    r.repeat.pop_front();
    request_slot(id);
  }
}

}  // namespace fs3::craq
