// Reads. A strict read waits for the version that is pending when it arrives: no reader anywhere
// can have seen a later one by then, since every update reaches this replica before it commits
// further down the chain.
#include <algorithm>
#include <utility>

#include "craq/impl.h"

namespace fs3::craq {

void Replica::Impl::on(const Read& event) {
  if (event.op & kOwnOp) return;
  if (event.chain_version != chain_.version)
    return reply(event.op, chain_mismatch(event.chain_version));
  ReadOperation read{event.chunk, event.from, event.relaxed, false, event.deadline_ns, 0, {}};
  if (Status status = may_answer(read); !status.ok()) return reply(event.op, std::move(status));
  // Where no neighbour has sound bytes, the disk may still hold those that are asked for.
  if (!event.from && damaged(event.chunk) && may_heal(event.chunk))
    return reply(event.op, error(kBusy, "the chunk is damaged here and waits for its repair"));
  if (!event.from) read.mark = pace_.begin(now_ns_);
  auto [it, fresh] = reads_.emplace(event.op, read);
  FS3_CHECK(fresh);
  admit_read(event.op, it->second);
}

Status Replica::Impl::may_answer(const ReadOperation& read) const {
  if (read.from) {
    bool above = chain_.predecessor && chain_.predecessor->target == read.from;
    bool below = chain_.successor && chain_.successor->target == read.from;
    if (!above && !below)
      return error(kBadRequest,
                   "from_target: " + std::to_string(read.from) + " is not next to this target");
    bool holds = serving() || (chain_.self == PublicState::kSyncing && sync_begun_ && !closed());
    return holds ? Status() : error(kNotServing, "the target has nothing to give now");
  }
  if (!serving()) return error(kNotServing, "the target does not serve; refresh the routing");
  if (!lease_holds())
    return error(kLeaseExpired, "no heartbeat was acknowledged in time; read another replica");
  return {};
}

void Replica::Impl::admit_read(OpId op, ReadOperation& read) {
  auto it = slots_.find(read.chunk);
  bool wait = it != slots_.end() && it->second.update && it->second.update->pending();
  if (!wait || read.relaxed) return start_read(op, read);
  if (it->second.reads.size() >= kMaxReadsPerChunk) {
    reads_.erase(op);
    return reply(op, error(kBusy, "too many reads wait for one pending version"));
  }
  touched_.push_back(read.chunk);
  it->second.reads.push_back(op);
}

void Replica::Impl::start_read(OpId op, ReadOperation& read) {
  read.started = true;
  read.started_in = chain_.version;
  emit(StartRead{op, read.chunk});
}

void Replica::Impl::start_waiting_reads(Slot& slot) {
  std::vector<OpId> ops;
  std::swap(ops, slot.reads);
  for (OpId op : ops) start_read(op, reads_.at(op));
}

void Replica::Impl::end_waiting_reads(Slot& slot, const Status& status) {
  for (OpId op : slot.reads) {
    reads_.erase(op);
    reply(op, status);
  }
  slot.reads.clear();
}

// The lease is checked after the bytes were read: a pause before the read cannot hide in between.
// A read that began under an older chain version is done again, since this replica may have been
// out of the chain meanwhile.
void Replica::Impl::on(const ReadDone& event) {
  auto it = reads_.find(event.op);
  if (it == reads_.end() || !it->second.started) return;
  ReadOperation& read = it->second;
  Status status = may_answer(read);
  if (status.ok()) status = event.status;
  if (read.from && status.code() == kChecksumMismatch)
    status = error(kDamaged, "this copy is damaged, too");
  if (status.ok() && read.from && read.started_in != chain_.version)
    status = chain_mismatch(read.started_in);
  if (status.ok() && read.started_in != chain_.version) {
    if (now_ns_ < read.deadline_ns) {
      read.started = false;
      return admit_read(event.op, read);
    }
    status = error(kBusy, "the chain changed while the bytes were read");
  }
  if (status.ok() && !read.from) pace_.end(now_ns_, ResyncPace::kRead, read.mark);
  reads_.erase(it);
  if (!status.ok()) return reply(event.op, std::move(status));
  reply(event.op, event.version, 0, 0);
}

}  // namespace fs3::craq
