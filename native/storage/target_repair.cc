// Damaged chunks of a target: finding out, asking a neighbour, answering one.
#include <utility>

#include "base/check.h"
#include "storage/target.h"

namespace fs3::storage {

// The engine put the block aside; what it holds now tells which version is in it. Told once: until
// the repair the replica reads the chunk no more.
void Target::note_damage(ChunkId chunk, const Status& status) {
  if (status.code() != kChecksumMismatch) return;
  ++world_.metrics.checksum_errors;
  auto state = world_.engine.get(id_, chunk);
  if (!state) return;
  std::string name = "target " + std::to_string(id_) + " chunk " + std::to_string(chunk.inode) +
                     "." + std::to_string(chunk.index);
  if (state->damaged || state->pending_damaged) {
    if (!replica_.damaged(chunk)) world_.warn(name + ": " + status.to_string());
  }
  if (state->damaged) feed(craq::Damaged{chunk, state->committed.version, false});
  if (state->pending_damaged) feed(craq::Damaged{chunk, state->pending->version, true});
}

void Target::execute(craq::Fetch& effect) {
  world_.forwarder.fetch(effect, {chain_id_, id_},
                         [self = weak_from_this()](craq::Fetched outcome, Buffer bytes) {
                           auto target = self.lock();
                           if (!target) return;
                           target->fetched_[outcome.op] = std::move(bytes);
                           target->feed(std::move(outcome));
                         });
}

Buffer Target::bytes_of(const craq::Stage& effect) {
  if (auto it = fetched_.find(effect.op); it != fetched_.end()) {
    FS3_CHECK(it->second.size() == effect.length);
    return it->second;
  }
  auto it = operations_.find(effect.op);
  FS3_CHECK(it != operations_.end() && it->second.data.size() == effect.length);
  return it->second.data;
}

void Target::fetch(const FetchCommand& command, net::ServerCallPtr call) {
  craq::Read event = command.event;
  event.deadline_ns = call->deadline_ns();
  event.op = begin(Kind::kFetch, std::move(call));
  Operation& operation = operations_[event.op];
  operation.offset = command.offset;
  operation.length = command.length;
  feed(event);
}

void Target::reply_fetch(Operation& operation) {
  auto length = static_cast<uint32_t>(operation.data.size());
  if (length > 0) operation.call->push(std::move(operation.data));
  operation.call->reply({}, encode_fetch_reply(length, operation.seen));
}

}  // namespace fs3::storage
