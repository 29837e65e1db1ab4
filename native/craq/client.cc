// A client's update at the head: known already, queued, or the next version of its chunk.
#include <cerrno>
#include <utility>

#include "craq/impl.h"

namespace fs3::craq {
namespace {

Update update_of(const ClientUpdate& event) {
  Update update;
  update.kind = event.kind;
  update.offset = event.offset;
  update.length = event.length;
  update.chunk_size = event.chunk_size;
  update.checksum = event.checksum;
  update.identity = event.identity;
  update.source = update.client_op = event.op;
  return update;
}

}  // namespace

void Replica::Impl::on(const ClientUpdate& event) {
  if (event.op & kOwnOp) return;
  if (Status status = admit(event); !status.ok()) return reply(event.op, std::move(status));
  if (answer_known(event)) return;
  if (full_ && needs_room(event.kind))
    return reply(event.op, error(ENOSPC, "the disk is full up to its reserve"));
  Slot& s = slot(event.chunk);
  if (!s.busy()) return begin(event);
  if (s.update && !s.update->failed.ok()) return reply(event.op, s.update->failed);
  if (s.queue.size() >= kMaxQueuedPerChunk)
    return reply(event.op, error(kBusy, "too many updates wait for this chunk"));
  open_identities_[event.identity] = event.chunk;
  s.queue.push_back({event, now_ns_});
}

Status Replica::Impl::admit(const ClientUpdate& event) const {
  bool known = event.kind == UpdateKind::kWrite || event.kind == UpdateKind::kTruncate ||
               event.kind == UpdateKind::kRemove;
  if (!known) return error(kBadRequest, "kind: is not one of a client's");
  if (anonymous(event.identity)) return error(kBadRequest, "identity.client_id: is zero");
  if (const char* bad = bad_range(event.kind, event.offset, event.length, event.chunk_size))
    return error(kBadRequest, bad);
  if (event.chain_version != chain_.version) return chain_mismatch(event.chain_version);
  if (!serving()) return error(kNotServing, "the target does not serve; refresh the routing");
  if (chain_.predecessor)
    return error(kNotHead, "target " + std::to_string(chain_.predecessor->target) +
                               " comes before this one; updates go to the head of the chain");
  if (!lease_holds())
    return error(kLeaseExpired, "no heartbeat was acknowledged in time; refresh the routing");
  return {};
}

// Answers a retry of an update that committed, joins one that is in progress.
bool Replica::Impl::answer_known(const ClientUpdate& event) {
  const UpdateIdentity& identity = event.identity;
  const LoadDedup* row = dedup_.find(identity);
  auto open = open_identities_.lower_bound(identity);
  if (open != open_identities_.end() && open->first == identity) {
    join(event, open->second);
    return true;
  }
  bool passed = row && row->identity.sequence > identity.sequence;
  passed = passed || (open != open_identities_.end() && open->first.channel == identity.channel &&
                      open->first.client_id == identity.client_id);
  if (passed) {
    reply(event.op, error(kDuplicateOld, "a later sequence of this channel was seen already"));
    return true;
  }
  if (!row || row->identity.sequence != identity.sequence) return false;
  if (row->chunk != event.chunk)
    reply(event.op, error(kBadRequest, "identity: was used for another chunk"));
  else
    reply(event.op, row->version, row->chunk_length, row->checksum);
  return true;
}

void Replica::Impl::join(const ClientUpdate& event, const ChunkId& id) {
  if (id != event.chunk)
    return reply(event.op, error(kBadRequest, "identity: is in use for another chunk"));
  Status replaced = error(kBusy, "a later request for the same update took its place");
  Slot& s = slot(id);
  if (!s.update || s.update->identity != event.identity) {
    for (Queued& queued : s.queue) {
      auto* waiting = std::get_if<ClientUpdate>(&queued.what);
      if (!waiting || waiting->identity != event.identity) continue;
      reply(waiting->op, replaced);
      *waiting = event;
      return;
    }
    FS3_CHECK(false);
  }
  Update& update = *s.update;
  bool came_as_asked = !update.from_disk && update.kind == event.kind;
  if (came_as_asked && !same_request(update, event))
    return reply(event.op, error(kBadRequest, "identity: is in use for an update of other bytes"));
  if (!update.failed.ok()) return reply(event.op, update.failed);
  end_waiter(update, update.client_op, replaced);
  update.client_op = event.op;
  update.client_since_ns = now_ns_;
  if (came_as_asked && update.source == 0) update.source = event.op;
}

void Replica::Impl::begin(const ClientUpdate& event) {
  Slot& s = slot(event.chunk);
  FS3_CHECK(!s.busy());
  const Record* record = chunks_.find(event.chunk);
  bool nothing = event.kind == UpdateKind::kRemove && !record;
  if (nothing || !lease_holds()) {
    open_identities_.erase(event.identity);
    if (!lease_holds())
      return reply(event.op, error(kLeaseExpired, "the lease ended in the queue"));
    // A copy of this request that comes later must not remove what others wrote meanwhile. The row
    // is in memory only: a restart or another head makes a new chain version, which refuses copies.
    dedup_.put({event.identity, event.chunk, 0, 0, 0});
    return reply(event.op, 0, 0, 0);
  }
  Update update = update_of(event);
  update.position = {chain_.version, (record ? record->version : removed_floor_) + 1};
  update.client_since_ns = now_ns_;
  begin_update(event.chunk, s, std::move(update));
}

}  // namespace fs3::craq
