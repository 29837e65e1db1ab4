#include "storage/target.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "base/check.h"
#include "craq/dedup.h"
#include "engine/dedup_rows.h"
#include "storage/chunk_runs.h"

namespace fs3::storage {
namespace {

constexpr size_t kLoadPage = 4096;

craq::LoadChunk load_of(const engine::ChunkState& state) {
  craq::LoadChunk event;
  event.chunk = state.chunk;
  event.committed = state.committed.version;
  event.committed_chain = state.committed.chain_version;
  event.length = state.committed.length;
  event.checksum = state.committed.checksum;
  event.damaged = state.damaged;
  if (state.pending) {
    event.pending = state.pending->version;
    event.pending_chain = state.pending->chain_version;
    event.pending_kind = state.pending->kind;
    event.pending_length = state.pending->length;
    event.pending_checksum = state.pending->checksum;
    event.pending_identity = state.pending->identity;
  }
  return event;
}

}  // namespace

// What the engine keeps is what the replica remembers.
static_assert(engine::kDedupRowsMax == craq::kMaxDedupRows);

Target::Target(World& world, TargetId id, ChainId chain)
    : world_(world), id_(id), chain_id_(chain), replica_(id) {}

void Target::load() {
  std::optional<ChunkId> after;
  for (;;) {
    auto page = world_.engine.list(id_, after, kLoadPage);
    for (const auto& state : page) feed(load_of(state));
    if (page.size() < kLoadPage) break;
    after = page.back().chunk;
  }
  for (const auto& row : world_.engine.dedup_rows(id_))
    feed(craq::LoadDedup{row.identity, row.chunk, row.version, row.chunk_length, row.checksum});
}

// ---- requests

craq::OpId Target::begin(Kind kind, net::ServerCallPtr call) {
  craq::OpId op = next_op_++;
  FS3_CHECK((op & craq::kOwnOp) == 0);
  Operation& operation = operations_[op];
  operation.kind = kind;
  operation.call = std::move(call);
  operation.began_ns = now_ns();
  return op;
}

void Target::read(const ReadCommand& command, net::ServerCallPtr call) {
  craq::Read event = command.event;
  event.deadline_ns = call->deadline_ns();
  event.op = begin(Kind::kRead, std::move(call));
  Operation& operation = operations_[event.op];
  operation.offset = command.offset;
  operation.length = command.length;
  feed(event);
}

void Target::update(const UpdateCommand& command, Buffer data, net::ServerCallPtr call) {
  craq::ClientUpdate event = command.event;
  event.op = begin(Kind::kUpdate, std::move(call));
  admit(event.op, event.chunk, event.kind, event.offset + event.length, std::move(data));
  feed(event);
}

void Target::forwarded(const ForwardCommand& command, Buffer data, net::ServerCallPtr call) {
  craq::Forwarded event = command.event;
  event.op = begin(Kind::kForwarded, std::move(call));
  admit(event.op, event.chunk, event.kind, event.offset + event.length, std::move(data));
  feed(event);
}

// A new version of a chunk is written beside the old one.
void Target::admit(craq::OpId op, ChunkId chunk, UpdateKind kind, uint32_t end, Buffer data) {
  Operation& operation = operations_[op];
  operation.length = static_cast<uint32_t>(data.size());
  operation.data = std::move(data);
  if (kind == UpdateKind::kRemove) return;
  auto state = world_.engine.get(id_, chunk);
  uint32_t length = std::max(end, state ? state->committed.length : 0);
  operation.size_class = engine::size_class_of(length);
  bool full = !world_.admission.enter(*operation.size_class);
  if (full != std::exchange(full_, full)) feed(craq::SetSpace{full});
}

void Target::sync_start(const SyncStartCommand& command, net::ServerCallPtr call) {
  craq::SyncStart event = command.event;
  event.op = begin(Kind::kSyncStart, std::move(call));
  operations_[event.op].after = command.after;
  operations_[event.op].limit = command.limit;
  feed(std::move(event));
}

void Target::sync_done(const SyncDoneCommand& command, net::ServerCallPtr call) {
  craq::SyncDone event = command.event;
  event.op = begin(Kind::kSyncDone, std::move(call));
  feed(event);
}

// The committed versions of any serving replica hold every acknowledged write; the lease is checked
// after they were looked at.
template <typename Look>
void Target::look_at_disk(const char* what, ChainVersion chain_version, net::ServerCallPtr call,
                          Look look) {
  const auto& view = replica_.chain();
  std::string where = world_.where + "/" + what;
  if (chain_version != view.version)
    return call->reply(Status(kChainVersionMismatch, where,
                              "chain " + std::to_string(chain_id_) + " is at version " +
                                  std::to_string(view.version) + ", request says " +
                                  std::to_string(chain_version)),
                       {});
  if (view.self != craq::PublicState::kServing || world_.engine.failed())
    return call->reply(
        Status(kNotServing, where, "target " + std::to_string(id_) + " does not serve"), {});
  std::string reply = look();
  if (now_ns() >= lease_until_ns_)
    return call->reply(Status(kLeaseExpired, where, "no heartbeat was acknowledged in time"), {});
  call->reply({}, reply);
}

void Target::query_last(const QueryLastCommand& command, net::ServerCallPtr call) {
  look_at_disk("query_last", command.chain_version, std::move(call), [&] {
    return encode_query_last_reply(world_.engine.chunks_of_inode(id_, command.inode));
  });
}

void Target::query_chunks(const QueryChunksCommand& command, net::ServerCallPtr call) {
  look_at_disk("query_chunks", command.chain_version, std::move(call), [&] {
    ChunkRuns runs(command);
    std::optional<ChunkId> after = runs.after();
    while (after) {
      auto page = world_.engine.list(id_, after, ChunkRuns::kPage);
      for (const auto& chunk : page) {
        if (!runs.add(chunk)) break;
      }
      if (page.size() < ChunkRuns::kPage) runs.end_of_disk();
      after = runs.complete() ? std::nullopt : std::optional(page.back().chunk);
    }
    return runs.reply();
  });
}

void Target::set_chain(const craq::ChainView& view) { feed(craq::SetChain{view}); }

void Target::set_lease(int64_t until_ns) {
  lease_until_ns_ = std::max(lease_until_ns_, until_ns);
  feed(craq::SetLease{lease_until_ns_});
}

void Target::grant_resync(uint64_t bytes) { feed(craq::GrantResync{bytes}); }

void Target::tick() {
  if (world_.engine.failed()) note_engine(Status(EIO, world_.where, "the disk failed"), false);
  feed(craq::Tick{});
}

TargetReport Target::report() const {
  TargetReport out{id_, chain_id_, replica_.chain().version, replica_.local()};
  if (world_.engine.failed()) out.state = craq::LocalState::kOffline;
  auto space = world_.engine.space();
  out.capacity_bytes = space.capacity_bytes;
  out.free_bytes = space.free_bytes;
  auto counts = replica_.statistics();
  out.damaged_chunks = counts.damaged;
  out.repaired_chunks = counts.repaired;
  if (uint64_t chunks = counts.chunks; chunks > 0) {
    double share = static_cast<double>(chunks) / std::max(chunks, space.chunks);
    out.used_bytes = std::max<uint64_t>(1, share * static_cast<double>(space.used_bytes));
  }
  return out;
}

// ---- the loop

void Target::feed(craq::Event event) {
  waiting_events_.push_back(std::move(event));
  if (feeding_) return;
  feeding_ = true;
  while (!waiting_events_.empty()) {
    craq::Event next = std::move(waiting_events_.front());
    waiting_events_.pop_front();
    effects_.clear();
    replica_.step(now_ns(), next, effects_);
    for (auto& effect : effects_) std::visit([this](auto& e) { execute(e); }, effect);
    if (const auto* fetched = std::get_if<craq::Fetched>(&next)) fetched_.erase(fetched->op);
  }
  feeding_ = false;
}

// ---- effects on the engine

void Target::execute(craq::Stage& effect) {
  engine::StageRequest request;
  request.target = id_;
  request.chunk = effect.chunk;
  request.version = effect.version;
  request.chain_version = effect.chain_version;
  request.kind = effect.kind;
  request.offset = effect.offset;
  request.length = effect.length;
  request.checksum = effect.checksum;
  request.identity = effect.identity;
  request.commit = effect.commit;
  request.lost = effect.lost;
  request.spares_blocks = full_;  // what is free is promised to updates that were admitted
  bool has_bytes = effect.kind == UpdateKind::kWrite || effect.kind == UpdateKind::kReplace;
  if (has_bytes && !effect.lost) request.data = bytes_of(effect);
  world_.engine.stage(std::move(request),
                      [self = weak_from_this(), op = effect.op, chunk = effect.chunk,
                       began = now_ns()](Result<engine::StageResult> result) {
                        auto target = self.lock();
                        if (!target) return;
                        target->world_.metrics.stage.end(now_ns() - began, result.ok(), 0);
                        target->note_engine(result.status(), true);
                        target->note_damage(chunk, result.status());
                        craq::Staged outcome{op, result.status(), 0, 0};
                        if (result.ok()) {
                          outcome.chunk_length = result->chunk_length;
                          outcome.checksum = result->checksum;
                        }
                        target->feed(std::move(outcome));
                      });
}

void Target::execute(craq::Commit& effect) {
  world_.engine.commit(id_, effect.chunk, effect.version, effect.synced,
                       [self = weak_from_this(), op = effect.op, began = now_ns()](Status status) {
                         auto target = self.lock();
                         if (!target) return;
                         target->world_.metrics.commit.end(now_ns() - began, status.ok(), 0);
                         target->note_engine(status, true);
                         target->feed(craq::Committed{op, std::move(status)});
                       });
}

void Target::execute(craq::Discard& effect) {
  world_.engine.discard(id_, effect.chunk, [self = weak_from_this()](Status status) {
    if (auto target = self.lock()) target->note_engine(status, true);
  });
}

void Target::execute(craq::PutDedup& effect) {
  std::vector<engine::DedupRow> rows;
  rows.reserve(effect.rows.size());
  for (const auto& row : effect.rows)
    rows.push_back({row.identity, row.chunk, row.version, row.chunk_length, row.checksum, 0});
  world_.engine.put_dedup_rows(id_, std::move(rows), effect.replace,
                               [self = weak_from_this()](Status status) {
                                 if (auto target = self.lock()) target->note_engine(status, true);
                               });
}

void Target::execute(craq::StartRead& effect) {
  auto it = operations_.find(effect.op);
  FS3_CHECK(it != operations_.end());
  world_.engine.read(id_, effect.chunk, it->second.offset, it->second.length, false,
                     [self = weak_from_this(), op = effect.op, chunk = effect.chunk,
                      began = now_ns()](Result<engine::ReadResult> result) {
                       auto target = self.lock();
                       if (!target) return;
                       auto found = target->operations_.find(op);
                       if (found == target->operations_.end())
                         return;  // answered meanwhile: its deadline passed
                       craq::ReadDone outcome{op, result.status(), 0};
                       uint64_t moved = 0;
                       if (result.ok()) {
                         outcome.version = result->version;
                         moved = result->data.size();
                         found->second.data = std::move(result->data);
                         found->second.seen = {result->version, result->chain_version,
                                               result->chunk_length, result->checksum};
                       }
                       target->world_.metrics.disk_read.end(now_ns() - began, result.ok(), moved);
                       target->note_engine(outcome.status, false);
                       target->note_damage(chunk, outcome.status);
                       target->feed(std::move(outcome));
                     });
}

// A write that failed ends the service of the target (the replica goes offline); bytes that failed
// their checksum are repaired.
void Target::note_engine(const Status& status, bool write) {
  if (status.ok() || status.code() == kChecksumMismatch) return;
  if (write) world_.warn("target " + std::to_string(id_) + ": " + status.to_string());
  if (!world_.engine.failed() || failure_noted_) return;
  failure_noted_ = true;
  world_.warn("target " + std::to_string(id_) + " is offline, its disk failed: " +
              status.to_string() + "; replace the disk and restart this server");
  world_.local_changed();
}

// ---- effects on other servers

void Target::execute(craq::Forward& effect) {
  switch (effect.bytes) {
    case craq::Forward::Bytes::kNone:
      return send(effect, Buffer());
    case craq::Forward::Bytes::kOfOp: {
      auto it = operations_.find(effect.source);
      FS3_CHECK(it != operations_.end() && it->second.data.size() == effect.length);
      return send(effect, it->second.data);
    }
    case craq::Forward::Bytes::kPending:
    case craq::Forward::Bytes::kCommitted:
      return send_from_disk(effect);
  }
}

void Target::send(const craq::Forward& effect, Buffer bytes) {
  uint64_t moved = bytes.size();
  world_.forwarder.forward(
      effect, {chain_id_, id_}, std::move(bytes),
      [self = weak_from_this(), moved, began = now_ns()](craq::ForwardDone outcome) {
        auto target = self.lock();
        if (!target) return;
        target->world_.metrics.forward.end(now_ns() - began, outcome.status.ok(), moved);
        target->note_refusal(outcome.status);
        target->feed(std::move(outcome));
      });
}

// What a successor never says to a predecessor that is in order; repeating it will not help.
void Target::note_refusal(const Status& status) {
  uint32_t code = status.code();
  if (code == kBadRequest || code == kCapabilityDenied || code == kWrongCluster ||
      code == kChecksumMismatch || code == kUnknownMethod)
    world_.warn("target " + std::to_string(id_) +
                ": its successor refuses an update: " + status.to_string());
}

void Target::send_from_disk(const craq::Forward& effect) {
  bool pending = effect.bytes == craq::Forward::Bytes::kPending;
  world_.engine.read(id_, effect.chunk, 0, effect.length, pending,
                     [self = weak_from_this(), effect](Result<engine::ReadResult> result) {
                       auto target = self.lock();
                       if (!target) return;
                       target->note_engine(result.status(), false);
                       target->note_damage(effect.chunk, result.status());
                       Status status = result.status();
                       // The peer's answer would end the update; this is only a delay.
                       if (status.code() == kChecksumMismatch)
                         status = Status(kBusy, target->world_.where + "/forward",
                                         "the chunk is damaged here and waits for its repair");
                       if (result.ok() && (result->version != effect.version ||
                                           result->data.size() != effect.length))
                         status = Status(kBusy, target->world_.where + "/forward",
                                         "the chunk changed while it was read");
                       if (!status.ok())
                         return target->feed(craq::ForwardDone{effect.op, std::move(status), 0});
                       target->send(effect, std::move(result->data));
                     });
}

void Target::execute(craq::AskPeerChunks& effect) {
  world_.forwarder.ask_chunks(effect, {chain_id_, id_},
                              [self = weak_from_this()](craq::PeerChunks page) {
                                if (auto target = self.lock()) target->feed(std::move(page));
                              });
}

void Target::execute(craq::TellPeerDone& effect) {
  world_.forwarder.tell_done(effect, {chain_id_, id_},
                             [self = weak_from_this()](craq::PeerDone outcome) {
                               if (auto target = self.lock()) target->feed(std::move(outcome));
                             });
}

void Target::execute(craq::SetLocal&) { world_.local_changed(); }

// ---- replies

void Target::execute(craq::Reply& effect) {
  auto it = operations_.find(effect.op);
  FS3_CHECK(it != operations_.end());
  Operation operation = std::move(it->second);
  operations_.erase(it);
  if (operation.size_class) world_.admission.leave(*operation.size_class);
  Status status = answer_of(effect.status);
  count(operation, status.ok());
  if (!status.ok()) return operation.call->reply(std::move(status), {});
  switch (operation.kind) {
    case Kind::kRead:
      return reply_read(operation, effect);
    case Kind::kUpdate:
    case Kind::kForwarded:
      return operation.call->reply({}, encode_update_reply(effect));
    case Kind::kFetch:
      return reply_fetch(operation);
    case Kind::kSyncStart:
      return reply_sync_start(operation);
    case Kind::kSyncDone:
      return operation.call->reply({}, {});
  }
}

// The disk's errors are this server's business; the caller should ask another replica, and repeat
// an update whose outcome here is not known.
Status Target::answer_of(const Status& status) const {
  if (!world_.engine.failed()) return status;
  std::string detail = "target " + std::to_string(id_) + " is offline, its disk failed";
  if (!status.ok()) detail += ": " + std::string(status.detail());
  return Status(kNotServing, world_.where, detail);
}

void Target::reply_read(Operation& operation, const craq::Reply& reply) {
  auto length = static_cast<uint32_t>(operation.data.size());
  FS3_CHECK(length <= operation.length);
  if (length > 0) operation.call->push(std::move(operation.data));
  operation.call->reply({}, encode_read_reply(length, operation.seen.length, reply.version));
}

void Target::reply_sync_start(Operation& operation) {
  if (operation.limit == 0) return operation.call->reply({}, encode_sync_start_reply({}, false));
  auto page = world_.engine.list(id_, operation.after, operation.limit);
  bool end = page.size() < operation.limit;
  operation.call->reply({}, encode_sync_start_reply(page, end));
}

void Target::count(const Operation& operation, bool ok) {
  int64_t duration_ns = now_ns() - operation.began_ns;
  auto& metrics = world_.metrics;
  if (operation.kind == Kind::kRead) metrics.read.end(duration_ns, ok, operation.data.size());
  if (operation.kind == Kind::kUpdate) metrics.write.end(duration_ns, ok, operation.length);
  if (operation.kind == Kind::kForwarded) metrics.receive.end(duration_ns, ok, operation.length);
}

}  // namespace fs3::storage
