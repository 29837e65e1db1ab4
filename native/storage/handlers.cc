// The requests of proto/storage.proto. Each handler goes: decode (bounds), capability, target,
// bytes, event; the answer comes from the target.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/crc32c.h"
#include "storage.pb.h"
#include "storage/service.h"

namespace fs3::storage {
namespace {

uint64_t wall_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

// Byte 1 of a token that was verified (proto/CAPABILITY.md).
bool is_server_token(std::string_view token) {
  return token.size() == auth::kCapabilitySize &&
         (static_cast<uint8_t>(token[1]) & auth::kServer) != 0;
}

// Of the bytes that came; what arrived in one piece was summed on arrival.
uint32_t crc_of(const net::ServerCall& call, const Buffer& whole) {
  if (call.source_length() == whole.size()) return call.source_checksum();
  return crc32c(0, whole.data(), whole.size());
}

Status sink_too_small(const net::ServerCall& call, uint32_t length) {
  return Status(kBadRequest, "storage",
                "sink: takes " + std::to_string(call.sink_length()) + " bytes, request asks for " +
                    std::to_string(length));
}

}  // namespace

void Service::handle(net::ServerCallPtr call) {
  namespace pb = proto::storage;
  if (call->deadline_ns() != 0 && now_ns() >= call->deadline_ns())
    return refuse(std::move(call), Status(kTimedOut, where_, "the deadline passed on the way"));
  switch (call->method()) {
    case pb::READ:
      return handle_read(std::move(call));
    case pb::WRITE:
    case pb::TRUNCATE:
    case pb::REMOVE:
      return handle_update(std::move(call));
    case pb::QUERY_LAST:
      return handle_query_last(std::move(call));
    case pb::QUERY_CHUNKS:
      return handle_query_chunks(std::move(call));
    case pb::FORWARD:
      return handle_forward(std::move(call));
    case pb::SYNC_START:
      return handle_sync_start(std::move(call));
    case pb::SYNC_DONE:
      return handle_sync_done(std::move(call));
    case pb::FETCH:
      return handle_fetch(std::move(call));
    case pb::DUMP:
      return handle_dump(std::move(call));
    case pb::READ_RAW:
      return handle_read_raw(std::move(call));
    case pb::SPACE:
      return handle_space(std::move(call));
    case pb::PING:
      return call->reply({}, {});
    default:
      return refuse(std::move(call), Status(kUnknownMethod, where_,
                                            "method " + std::to_string(call->method()) +
                                                " is not one of the storage service"));
  }
}

void Service::refuse(net::ServerCallPtr call, Status status) {
  if (status.code() == kBadRequest) ++metrics_.bad_requests;
  if (status.code() == kCapabilityDenied) {
    ++metrics_.denied;
    warn("denied a request of " + call->principal().address + ": " + std::string(status.detail()));
  }
  if (status.code() == kChecksumMismatch) {
    ++metrics_.checksum_errors;
    warn("bytes from " + call->principal().address + ": " + std::string(status.detail()));
  }
  call->reply(std::move(status), {});
}

Status Service::allow(const net::ServerCall& call, uint8_t rights, uint64_t inode) {
  return verifier_.check(call.capability(), rights, inode, call.principal().instance_id, wall_ms());
}

Status Service::own_identity(const net::ServerCall& call, const UpdateIdentity& identity) const {
  const auto& peer = call.principal().instance_id;
  if (is_server_token(call.capability())) return {};
  if (peer.size() == identity.client_id.size() &&
      std::memcmp(peer.data(), identity.client_id.data(), peer.size()) == 0)
    return {};
  return Status(kBadRequest, where_, "identity.client_id: is not the id of the calling client");
}

Result<Target*> Service::find(TargetId id) const {
  auto it = targets_.find(id);
  if (it != targets_.end()) return it->second.get();
  return Status(kUnknownTarget, where_, "target " + std::to_string(id) + " is not on this server");
}

Result<Target*> Service::find(const Destination& to) const {
  auto target = find(to.target);
  if (target.ok() && (*target)->chain_id() != to.chain)
    return Status(kBadRequest, where_,
                  "chain_id: target " + std::to_string(to.target) + " belongs to chain " +
                      std::to_string((*target)->chain_id()) + ", request says " +
                      std::to_string(to.chain));
  return target;
}

void Service::with_source(net::ServerCallPtr call,
                          Function<void(net::ServerCallPtr, Buffer)> next) {
  size_t length = call->source_length();
  if (length == 0) return next(std::move(call), Buffer());
  auto* pulled = call.get();
  pulled->pull(0, length,
               [this, call = std::move(call), next = std::move(next)](Result<Buffer> data) mutable {
                 if (!data.ok()) return refuse(std::move(call), data.status());
                 next(std::move(call), std::move(*data));
               });
}

void Service::handle_read(net::ServerCallPtr call) {
  auto command = decode_read(call->body());
  if (!command.ok()) return refuse(std::move(call), command.status());
  if (Status s = allow(*call, auth::kRead, command->event.chunk.inode); !s.ok())
    return refuse(std::move(call), std::move(s));
  if (call->sink_length() < command->length)
    return refuse(std::move(call), sink_too_small(*call, command->length));
  auto target = find(command->to);
  if (!target.ok()) return refuse(std::move(call), target.status());
  (*target)->read(*command, std::move(call));
}

void Service::handle_update(net::ServerCallPtr call) {
  namespace pb = proto::storage;
  bool write = call->method() == pb::WRITE;
  auto command = write                            ? decode_write(call->body())
                 : call->method() == pb::TRUNCATE ? decode_truncate(call->body())
                                                  : decode_remove(call->body());
  if (!command.ok()) return refuse(std::move(call), command.status());
  const auto& event = command->event;
  // A client removes chunks where it punches holes; cutting one is the metadata service's alone.
  uint8_t rights = write                          ? auth::kWrite
                   : call->method() == pb::REMOVE ? auth::kTruncate
                                                  : auth::kServer;
  Status s = allow(*call, rights, event.chunk.inode);
  if (s.ok()) s = own_identity(*call, event.identity);
  size_t wanted = write ? event.length : 0;
  if (s.ok() && call->source_length() != wanted)
    s = Status(kBadRequest, where_,
               "length: " + std::to_string(call->source_length()) +
                   " bytes came where the fields say " + std::to_string(wanted));
  if (s.ok() && write && call->source_checksum() != event.checksum)
    s = Status(kChecksumMismatch, where_, "checksum: the bytes are not those that were written");
  if (!s.ok()) return refuse(std::move(call), std::move(s));
  auto target = find(command->to);
  if (!target.ok()) return refuse(std::move(call), target.status());
  with_source(std::move(call), [target = (*target)->shared_from_this(), command = *command](
                                   net::ServerCallPtr ready, Buffer data) {
    target->update(command, std::move(data), std::move(ready));
  });
}

void Service::handle_forward(net::ServerCallPtr call) {
  auto command = decode_forward(call->body(), call->source_length());
  if (!command.ok()) return refuse(std::move(call), command.status());
  if (Status s = allow(*call, auth::kServer, command->event.chunk.inode); !s.ok())
    return refuse(std::move(call), std::move(s));
  auto target = find(command->to);
  if (!target.ok()) return refuse(std::move(call), target.status());
  with_source(std::move(call), [this, target = (*target)->shared_from_this(), command = *command](
                                   net::ServerCallPtr ready, Buffer data) {
    auto whole = command.event.kind == UpdateKind::kReplace && !command.event.lost
                     ? assembler_.add(command, std::move(data), now_ns())
                     : Result<std::optional<Buffer>>(std::optional(std::move(data)));
    if (!whole.ok()) return refuse(std::move(ready), whole.status());
    if (!*whole) return ready->reply({}, encode_update_reply({}));
    const auto& event = command.event;
    if (!(*whole)->empty() && crc_of(*ready, **whole) != event.checksum)
      return refuse(std::move(ready), Status(kChecksumMismatch, where_,
                                             "checksum: the bytes are not those that were sent"));
    target->forwarded(command, std::move(**whole), std::move(ready));
  });
}

void Service::handle_sync_start(net::ServerCallPtr call) {
  auto command = decode_sync_start(call->body());
  if (!command.ok()) return refuse(std::move(call), command.status());
  if (Status s = allow(*call, auth::kServer, 0); !s.ok())
    return refuse(std::move(call), std::move(s));
  auto target = find(command->to);
  if (!target.ok()) return refuse(std::move(call), target.status());
  (*target)->sync_start(*command, std::move(call));
}

void Service::handle_sync_done(net::ServerCallPtr call) {
  auto command = decode_sync_done(call->body());
  if (!command.ok()) return refuse(std::move(call), command.status());
  if (Status s = allow(*call, auth::kServer, 0); !s.ok())
    return refuse(std::move(call), std::move(s));
  auto target = find(command->to);
  if (!target.ok()) return refuse(std::move(call), target.status());
  (*target)->sync_done(*command, std::move(call));
}

void Service::handle_fetch(net::ServerCallPtr call) {
  auto command = decode_fetch(call->body());
  if (!command.ok()) return refuse(std::move(call), command.status());
  if (Status s = allow(*call, auth::kServer, command->event.chunk.inode); !s.ok())
    return refuse(std::move(call), std::move(s));
  if (call->sink_length() < command->length)
    return refuse(std::move(call), sink_too_small(*call, command->length));
  auto target = find(command->to);
  if (!target.ok()) return refuse(std::move(call), target.status());
  (*target)->fetch(*command, std::move(call));
}

void Service::handle_query_last(net::ServerCallPtr call) {
  auto command = decode_query_last(call->body());
  if (!command.ok()) return refuse(std::move(call), command.status());
  if (Status s = allow(*call, auth::kServer, command->inode); !s.ok())
    return refuse(std::move(call), std::move(s));
  auto target = find(command->to);
  if (!target.ok()) return refuse(std::move(call), target.status());
  (*target)->query_last(*command, std::move(call));
}

// Who may write a file may know where it has holes, as by lseek(2).
void Service::handle_query_chunks(net::ServerCallPtr call) {
  auto command = decode_query_chunks(call->body());
  if (!command.ok()) return refuse(std::move(call), command.status());
  Status s = allow(*call, auth::kRead, command->inode);
  if (!s.ok()) s = allow(*call, auth::kWrite, command->inode);
  if (!s.ok()) return refuse(std::move(call), std::move(s));
  auto target = find(command->to);
  if (!target.ok()) return refuse(std::move(call), target.status());
  (*target)->query_chunks(*command, std::move(call));
}

void Service::handle_dump(net::ServerCallPtr call) {
  auto command = decode_dump(call->body());
  if (!command.ok()) return refuse(std::move(call), command.status());
  if (Status s = allow(*call, auth::kServer, 0); !s.ok())
    return refuse(std::move(call), std::move(s));
  auto target = find(command->target);
  if (!target.ok()) return refuse(std::move(call), target.status());
  auto page = engine_->list(command->target, command->after, command->limit);
  bool end = page.size() < command->limit;
  call->reply({}, encode_dump_reply(page, end));
}

void Service::handle_read_raw(net::ServerCallPtr call) {
  auto command = decode_read_raw(call->body());
  if (!command.ok()) return refuse(std::move(call), command.status());
  if (Status s = allow(*call, auth::kServer, command->chunk.inode); !s.ok())
    return refuse(std::move(call), std::move(s));
  if (call->sink_length() < command->length)
    return refuse(std::move(call), sink_too_small(*call, command->length));
  auto target = find(command->target);
  if (!target.ok()) return refuse(std::move(call), target.status());
  engine_->read(command->target, command->chunk, command->offset, command->length, false,
                [chunk = command->chunk, alive = std::weak_ptr((*target)->shared_from_this()),
                 call = std::move(call)](Result<engine::ReadResult> result) mutable {
                  auto reader = alive.lock();
                  if (!reader) return;
                  if (!result.ok()) {
                    reader->note_damage(chunk, result.status());
                    return call->reply(result.status(), {});
                  }
                  auto length = static_cast<uint32_t>(result->data.size());
                  if (length > 0) call->push(std::move(result->data));
                  call->reply({}, encode_read_reply(length, result->chunk_length, result->version));
                });
}

void Service::handle_space(net::ServerCallPtr call) {
  if (Status s = allow(*call, auth::kServer, 0); !s.ok())
    return refuse(std::move(call), std::move(s));
  call->reply({}, encode_space_reply(engine_->space()));
}

}  // namespace fs3::storage
