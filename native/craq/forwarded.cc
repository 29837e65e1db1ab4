// An update from the predecessor: there already, joined, queued, or staged as the pending version.
#include <cerrno>
#include <utility>

#include "craq/impl.h"

namespace fs3::craq {
namespace {

Update update_of(const Forwarded& event) {
  Update update;
  update.kind = event.kind;
  update.position = {event.update_chain, event.version};
  update.offset = event.offset;
  update.length = event.length;
  update.chunk_size = event.chunk_size;
  update.checksum = event.checksum;
  update.identity = event.identity;
  update.resync = event.resync;
  update.lost = event.lost;
  update.source = update.forward_op_in = event.op;
  return update;
}

}  // namespace

void Replica::Impl::on(const Forwarded& event) {
  if (event.op & kOwnOp) return;
  if (Status status = admit(event); !status.ok()) return reply(event.op, std::move(status));
  Slot& s = slot(event.chunk);
  if (!s.busy()) return begin(event);
  Position position{event.update_chain, event.version};
  if (s.update && s.update->position == position && voids(event, s)) {
    end_waiters(*s.update, error(kStaleUpdate, "the head made this update void"));
    return begin(event);
  }
  if (s.update && s.update->position == position && !(event.resync && event.version == 0)) {
    if (s.update->identity == event.identity || anonymous(event.identity))
      return join(event, *s.update);
    if (!anonymous(s.update->identity))
      return reply(event.op, error(kChecksumMismatch,
                                   "version " + text(position) + " is another update here"));
  }
  bool healing = s.repair && s.repair->staging;
  if (s.update && !healing && replaces(event, *s.update)) {
    end_waiters(*s.update, error(kStaleUpdate, "a newer chain version made another update"));
    return begin(event);
  }
  if (s.update && !s.update->failed.ok()) return reply(event.op, s.update->failed);
  for (Queued& queued : s.queue) {
    auto* waiting = std::get_if<Forwarded>(&queued.what);
    if (!waiting || waiting->version != event.version || waiting->kind != event.kind) continue;
    reply(waiting->op, error(kBusy, "a later request for the same update took its place"));
    *waiting = event;
    return;
  }
  if (s.queue.size() >= kMaxQueuedPerChunk)
    return reply(event.op, error(kBusy, "too many updates wait for this chunk"));
  s.queue.push_back({event, now_ns_});
}

Status Replica::Impl::admit(const Forwarded& event) const {
  bool absent = event.resync && event.kind == UpdateKind::kRemove;
  bool known = event.kind >= UpdateKind::kWrite && event.kind <= UpdateKind::kReplace;
  if (!known) return error(kBadRequest, "kind: is none that is known");
  if (event.version == 0 && !absent) return error(kBadRequest, "version: is zero");
  if (event.update_chain > event.chain_version)
    return error(kBadRequest, "update_chain: is newer than the message");
  uint32_t bound = event.kind == UpdateKind::kReplace ? kMaxChunkSize : event.chunk_size;
  if (event.lost && event.kind != UpdateKind::kReplace && event.kind != UpdateKind::kTruncate)
    return error(kBadRequest, "damaged: belongs to a whole chunk, or to a version that is void");
  if (const char* bad = bad_range(event.kind, event.offset, event.length, bound))
    return error(kBadRequest, bad);
  if (event.chain_version != chain_.version) return chain_mismatch(event.chain_version);
  if (!serving() && !(chain_.self == PublicState::kSyncing && sync_begun_ && !closed()))
    return error(kNotServing, "the target takes no updates now");
  if (!chain_.predecessor || chain_.predecessor->target != event.from)
    return error(kBadRequest,
                 "from_target: " + std::to_string(event.from) + " is not the predecessor");
  if (event.resync && chain_.self != PublicState::kSyncing)
    return error(kBadRequest, "resync: this target is not syncing");
  return {};
}

// A retry of what is in progress: the newest request gets the answer.
void Replica::Impl::join(const Forwarded& event, Update& update) {
  if (!update.failed.ok()) return reply(event.op, update.failed);
  end_waiter(update, update.forward_op_in,
             error(kBusy, "a later request for the same update took its place"));
  update.forward_op_in = event.op;
  update.forward_since_ns = now_ns_;
  if (update.source == 0 && same_request(update, event)) update.source = event.op;
  // The predecessor sends it whole: now it can be staged without what is damaged here.
  if (!update.unsound || update.source != 0 || event.kind != UpdateKind::kReplace) return;
  update.kind = event.kind;
  update.offset = 0;
  update.length = event.length;
  update.checksum = event.checksum;
  update.source = event.op;
  Slot& s = slot(event.chunk);
  if (s.repair && s.repair->staging) return;  // then it is staged
  end_fetch(s);
  update.unsound = false;
  drive(event.chunk, s);
}

// An update that cannot be staged here, and that the head has given up since (void_unsound()).
bool Replica::Impl::voids(const Forwarded& event, const Slot& slot) const {
  bool healing = slot.repair && slot.repair->staging;
  return slot.update->unsound && !healing && event.lost && event.kind == UpdateKind::kTruncate;
}

// A pending version that an earlier head made and the chain forgot gives way to the one of the same
// number that a later head made.
bool Replica::Impl::replaces(const Forwarded& event, const Update& update) const {
  bool idle = update.pending() && !update.on_disk_now();
  bool newer = event.update_chain > update.position.chain;
  return idle && newer && event.version == update.position.version &&
         !(full_ && needs_room(event.kind));
}

// In a syncing replica: the chunk is known to be as the predecessor has it, so the rules of a
// serving replica hold for it.
bool Replica::Impl::level(const ChunkId& id) const {
  if (chain_.self != PublicState::kSyncing) return true;
  const Record* record = chunks_.find(id);
  return record ? record->level_in == chain_.version : tombstones_.contains(id);
}

void Replica::Impl::begin(const Forwarded& event) {
  const ChunkId& id = event.chunk;
  Slot& s = slot(id);
  Position position{event.update_chain, event.version};
  Record* record = chunks_.find(id);
  auto tombstone = tombstones_.find(id);
  bool delta = event.kind == UpdateKind::kWrite || event.kind == UpdateKind::kTruncate;
  if (full_ && needs_room(event.kind))
    return reply(event.op, error(ENOSPC, "the disk is full up to its reserve"));
  if (!level(id)) {
    if (delta) return reply(event.op, error(kMissingBase, "this chunk is not level yet"));
    bool has_it = record && record->position() == position && record->length == event.length &&
                  record->checksum == event.checksum;
    // What is damaged here as there may in part be readable.
    if (has_it && event.resync && event.kind == UpdateKind::kReplace &&
        (event.lost || !damaged(id))) {
      record->level_in = chain_.version;
      return reply(event.op, record->version, record->length, record->checksum);
    }
  } else if (event.resync && event.kind == UpdateKind::kRemove && !record) {
    return reply(event.op, 0, 0, 0);
  } else if (record || tombstone != tombstones_.end()) {
    Position here = record ? record->position() : tombstone->second.position;
    if (position == here)
      return reply(event.op, here.version, record ? record->length : 0,
                   record ? record->checksum : 0);
    if (position < here)
      return reply(event.op,
                   error(kStaleUpdate, "version " + text(position) + " comes after " + text(here)));
    if (record && event.kind == UpdateKind::kReplace && event.version <= record->version)
      return reply(event.op, error(kChecksumMismatch,
                                   "version " + text(position) + " would take back " + text(here)));
  } else if (event.kind == UpdateKind::kRemove) {
    return reply(event.op, event.version, 0, 0);
  }
  if (delta && event.version != (record ? record->version : 0) + 1)
    return reply(event.op, error(kMissingBase, "version " + text(position) +
                                                   " does not follow; send the chunk whole"));
  auto refused = refused_.find(id);
  if (delta && !event.lost && refused != refused_.end() && position <= refused->second)
    return reply(event.op, error(kMissingBase, "the head was told that it is not made here"));
  if (s.update) forget_update(s);
  Update update = update_of(event);
  update.forward_since_ns = now_ns_;
  begin_update(id, s, std::move(update));
}

}  // namespace fs3::craq
