#include "storage/codec.h"

#include <bit>
#include <span>

#include "common.pb.h"
#include "storage.pb.h"

namespace fs3::storage {
namespace {

namespace pb = fs3::proto::storage;

Status bad(std::string_view field, std::string_view why) {
  return Status(kBadRequest, "storage", std::string(field) + ": " + std::string(why));
}

std::string number(uint64_t value) { return std::to_string(value); }

template <typename Message>
Status parse(std::string_view body, Message& message) {
  if (message.ParseFromArray(body.data(), static_cast<int>(body.size()))) return {};
  return bad("body", "is not the message that the method asks for");
}

template <typename Message>
std::string serialize(const Message& message) {
  std::string out;
  message.SerializeToString(&out);
  return out;
}

ChunkId chunk_of(const proto::ChunkId& chunk) { return {chunk.inode(), chunk.index()}; }

void put_chunk(const ChunkId& chunk, proto::ChunkId* out) {
  out->set_inode(chunk.inode);
  out->set_index(chunk.index);
}

Status check_chunk(bool present, const proto::ChunkId& chunk) {
  if (!present) return bad("chunk", "is missing");
  if (chunk.inode() == 0) return bad("chunk.inode", "is 0");
  return {};
}

Status check_chunk_size(uint32_t size) {
  if (size >= kMinChunkSize && size <= kMaxChunkSize && std::has_single_bit(size)) return {};
  return bad("chunk_size", number(size) + " is not a power of two from 64 KiB to 64 MiB");
}

Status check_range(uint32_t offset, uint32_t length, uint32_t limit) {
  if (offset > limit) return bad("offset", number(offset) + " is beyond " + number(limit));
  if (length > limit - offset)
    return bad("length",
               number(length) + " from " + number(offset) + " ends beyond " + number(limit));
  return {};
}

Status check_payload(uint32_t length) {
  if (length > 0 && length <= kMaxPayload) return {};
  return bad("length", number(length) + " is not from 1 to 4 MiB, the most one frame carries");
}

template <typename Row>
Status take_identity(const Row& row, std::string_view field, UpdateIdentity& out) {
  if (row.client_id().size() != out.client_id.size())
    return bad(std::string(field) + ".client_id",
               "has " + number(row.client_id().size()) + " bytes, not 16");
  std::copy(row.client_id().begin(), row.client_id().end(), out.client_id.begin());
  out.channel = row.channel();
  out.sequence = row.sequence();
  return {};
}

template <typename Row>
void put_identity(const UpdateIdentity& identity, Row* out) {
  out->set_client_id(identity.client_id.data(), identity.client_id.size());
  out->set_channel(identity.channel);
  out->set_sequence(identity.sequence);
}

template <typename Request>
Status take_update(const Request& request, UpdateKind kind, UpdateCommand& out) {
  if (Status s = check_chunk(request.has_chunk(), request.chunk()); !s.ok()) return s;
  if (!request.has_identity()) return bad("identity", "is missing");
  out.to = {request.target_id(), request.chain_id()};
  out.event.chunk = chunk_of(request.chunk());
  out.event.kind = kind;
  out.event.chain_version = request.chain_version();
  return take_identity(request.identity(), "identity", out.event.identity);
}

void put_page(const std::vector<engine::ChunkState>& page,
              google::protobuf::RepeatedPtrField<pb::ChunkInfo>* out) {
  out->Reserve(static_cast<int>(page.size()));
  for (const auto& state : page) {
    auto* info = out->Add();
    put_chunk(state.chunk, info->mutable_chunk());
    info->set_version(state.committed.version);
    info->set_chain_version(state.committed.chain_version);
    info->set_length(state.committed.length);
    info->set_checksum(state.committed.checksum);
    info->set_pending(state.pending.has_value());
    info->set_damaged(state.damaged);
    if (state.pending) info->set_pending_version(state.pending->version);
  }
}

Status check_limit(uint32_t limit, uint32_t least) {
  if (limit >= least && limit <= kMaxPage) return {};
  return bad("limit", number(limit) + " is not from " + number(least) + " to " + number(kMaxPage));
}

}  // namespace

Result<ReadCommand> decode_read(std::string_view body) {
  pb::ReadRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (Status s = check_chunk(request.has_chunk(), request.chunk()); !s.ok()) return s;
  if (Status s = check_payload(request.length()); !s.ok()) return s;
  if (Status s = check_range(request.offset(), request.length(), kMaxChunkSize); !s.ok()) return s;
  ReadCommand out;
  out.to = {request.target_id(), request.chain_id()};
  out.event.chunk = chunk_of(request.chunk());
  out.event.chain_version = request.chain_version();
  out.event.relaxed = request.relaxed();
  out.offset = request.offset();
  out.length = request.length();
  return out;
}

Result<UpdateCommand> decode_write(std::string_view body) {
  pb::WriteRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (Status s = check_chunk_size(request.chunk_size()); !s.ok()) return s;
  if (Status s = check_payload(request.length()); !s.ok()) return s;
  if (Status s = check_range(request.offset(), request.length(), request.chunk_size()); !s.ok())
    return s;
  UpdateCommand out;
  if (Status s = take_update(request, UpdateKind::kWrite, out); !s.ok()) return s;
  out.event.offset = request.offset();
  out.event.length = request.length();
  out.event.chunk_size = request.chunk_size();
  out.event.checksum = request.checksum();
  return out;
}

Result<UpdateCommand> decode_truncate(std::string_view body) {
  pb::TruncateRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (Status s = check_chunk_size(request.chunk_size()); !s.ok()) return s;
  if (Status s = check_range(0, request.length(), request.chunk_size()); !s.ok()) return s;
  UpdateCommand out;
  if (Status s = take_update(request, UpdateKind::kTruncate, out); !s.ok()) return s;
  out.event.length = request.length();
  out.event.chunk_size = request.chunk_size();
  return out;
}

Result<UpdateCommand> decode_remove(std::string_view body) {
  pb::RemoveRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  UpdateCommand out;
  if (Status s = take_update(request, UpdateKind::kRemove, out); !s.ok()) return s;
  return out;
}

namespace {

Status check_forward_lengths(const pb::ForwardRequest& request, size_t payload) {
  bool whole = request.kind() == pb::UPDATE_REPLACE;
  bool has_bytes = whole || request.kind() == pb::UPDATE_WRITE;
  if (!whole && request.piece_offset() != 0)
    return bad("piece_offset", "only a REPLACE comes in pieces");
  if (request.damaged()) {
    bool cut = request.kind() == pb::UPDATE_TRUNCATE;
    if ((!whole && !cut) || request.piece_offset() != 0 || request.length() == 0)
      return bad("damaged", "belongs to a REPLACE or TRUNCATE of some length in one piece");
    return payload == 0 ? Status() : bad("length", "bytes came with a chunk that is damaged");
  }
  if (request.piece_offset() > request.length())
    return bad("piece_offset", number(request.piece_offset()) + " is beyond the length");
  uint64_t left = has_bytes ? request.length() - request.piece_offset() : 0;
  bool fits = whole ? payload <= left && (payload > 0 || left == 0) : payload == left;
  if (!fits || payload > kMaxPayload)
    return bad("length", number(payload) + " bytes came where the fields say " + number(left));
  return {};
}

Status check_forward(const pb::ForwardRequest& request, size_t payload) {
  if (request.kind() <= pb::UPDATE_NONE || request.kind() > pb::UPDATE_REPLACE)
    return bad("kind", number(static_cast<uint64_t>(request.kind())) + " is unknown");
  if (Status s = check_chunk(request.has_chunk(), request.chunk()); !s.ok()) return s;
  // Resync removes what the predecessor does not have, and so has no version of.
  bool absent = request.resync() && request.kind() == pb::UPDATE_REMOVE;
  if (request.version() == 0 && !absent) return bad("version", "is 0");
  // Removals and whole replacements of resync do not know the layout's chunk size.
  uint32_t limit = request.chunk_size() == 0 ? kMaxChunkSize : request.chunk_size();
  if (Status s = check_chunk_size(limit); !s.ok()) return s;
  if (Status s = check_range(request.offset(), request.length(), limit); !s.ok()) return s;
  return check_forward_lengths(request, payload);
}

}  // namespace

Result<ForwardCommand> decode_forward(std::string_view body, size_t payload) {
  pb::ForwardRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (Status s = check_forward(request, payload); !s.ok()) return s;
  ForwardCommand out;
  out.to = {request.target_id(), request.chain_id()};
  auto& event = out.event;
  // A resync sends chunks whose last writer is not known: no identity stands for "none".
  if (request.has_identity())
    if (Status s = take_identity(request.identity(), "identity", event.identity); !s.ok()) return s;
  event.from = request.from_target();
  event.chunk = chunk_of(request.chunk());
  event.kind = static_cast<UpdateKind>(request.kind());
  event.version = request.version();
  event.offset = request.offset();
  event.length = request.length();
  event.chunk_size = request.chunk_size();
  event.checksum = request.checksum();
  event.chain_version = request.chain_version();
  event.update_chain = request.update_chain_version();
  event.resync = request.resync();
  event.lost = request.damaged();
  out.piece_offset = request.piece_offset();
  return out;
}

namespace {

Status take_dedup(const pb::DedupRow& row, craq::LoadDedup& out) {
  if (Status s = take_identity(row, "dedup", out.identity); !s.ok()) return s;
  if (!row.has_chunk()) return bad("dedup.chunk", "is missing");
  out.chunk = chunk_of(row.chunk());
  out.version = row.version();
  out.chunk_length = row.chunk_length();
  out.checksum = row.checksum();
  if (out.chunk_length > kMaxChunkSize) return bad("dedup.chunk_length", "is beyond 64 MiB");
  return {};
}

}  // namespace

Result<SyncStartCommand> decode_sync_start(std::string_view body) {
  pb::SyncStartRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (Status s = check_limit(request.limit(), 0); !s.ok()) return s;
  if (request.dedup_size() > static_cast<int>(kMaxDedupRows))
    return bad("dedup", number(request.dedup_size()) + " rows are more than one request carries");
  SyncStartCommand out;
  out.to = {request.target_id(), request.chain_id()};
  out.event.from = request.from_target();
  out.event.chain_version = request.chain_version();
  out.event.dedup.resize(request.dedup_size());
  for (int i = 0; i < request.dedup_size(); ++i)
    if (Status s = take_dedup(request.dedup(i), out.event.dedup[i]); !s.ok()) return s;
  if (request.has_after()) out.after = chunk_of(request.after());
  out.limit = request.limit();
  return out;
}

Result<SyncDoneCommand> decode_sync_done(std::string_view body) {
  pb::SyncDoneRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  SyncDoneCommand out;
  out.to = {request.target_id(), request.chain_id()};
  out.event.from = request.from_target();
  out.event.chain_version = request.chain_version();
  return out;
}

Result<FetchCommand> decode_fetch(std::string_view body) {
  pb::FetchRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (Status s = check_chunk(request.has_chunk(), request.chunk()); !s.ok()) return s;
  if (Status s = check_payload(request.length()); !s.ok()) return s;
  if (request.offset() > kMaxChunkSize) return bad("offset", "is beyond 64 MiB");
  if (request.from_target() == 0) return bad("from_target", "is 0");
  FetchCommand out;
  out.to = {request.target_id(), request.chain_id()};
  out.event.chunk = chunk_of(request.chunk());
  out.event.chain_version = request.chain_version();
  out.event.relaxed = !request.settled();
  out.event.from = request.from_target();
  out.offset = request.offset();
  out.length = request.length();
  return out;
}

Result<QueryLastCommand> decode_query_last(std::string_view body) {
  pb::QueryLastRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (request.inode() == 0) return bad("inode", "is 0");
  return QueryLastCommand{
      {request.target_id(), request.chain_id()}, request.chain_version(), request.inode()};
}

Result<QueryChunksCommand> decode_query_chunks(std::string_view body) {
  pb::QueryChunksRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (request.inode() == 0) return bad("inode", "is 0");
  if (request.step() == 0) return bad("step", "is 0");
  if (Status s = check_chunk_size(request.chunk_size()); !s.ok()) return s;
  if (Status s = check_limit(request.limit(), 1); !s.ok()) return s;
  return QueryChunksCommand{{request.target_id(), request.chain_id()},
                            request.chain_version(),
                            request.inode(),
                            request.first(),
                            request.step(),
                            request.chunk_size(),
                            request.limit()};
}

Result<DumpCommand> decode_dump(std::string_view body) {
  pb::DumpRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (Status s = check_limit(request.limit(), 1); !s.ok()) return s;
  DumpCommand out{request.target_id(), std::nullopt, request.limit()};
  if (request.has_after()) out.after = chunk_of(request.after());
  return out;
}

Result<ReadRawCommand> decode_read_raw(std::string_view body) {
  pb::ReadRawRequest request;
  if (Status s = parse(body, request); !s.ok()) return s;
  if (Status s = check_chunk(request.has_chunk(), request.chunk()); !s.ok()) return s;
  if (Status s = check_payload(request.length()); !s.ok()) return s;
  if (Status s = check_range(request.offset(), request.length(), kMaxChunkSize); !s.ok()) return s;
  return ReadRawCommand{request.target_id(), chunk_of(request.chunk()), request.offset(),
                        request.length()};
}

std::string encode_read_reply(uint32_t length, uint32_t chunk_length, ChunkVersion version) {
  pb::ReadReply reply;
  reply.set_length(length);
  reply.set_chunk_length(chunk_length);
  reply.set_version(version);
  return serialize(reply);
}

std::string encode_fetch_reply(uint32_t length, const engine::VersionInfo& whole) {
  pb::FetchReply reply;
  reply.set_length(length);
  reply.set_chunk_length(whole.length);
  reply.set_version(whole.version);
  reply.set_update_chain_version(whole.chain_version);
  reply.set_checksum(whole.checksum);
  return serialize(reply);
}

std::string encode_update_reply(const craq::Reply& in) {
  pb::UpdateReply reply;
  reply.set_version(in.version);
  reply.set_chunk_length(in.chunk_length);
  reply.set_checksum(in.checksum);
  return serialize(reply);
}

std::string encode_query_last_reply(const engine::InodeChunks& held) {
  pb::QueryLastReply reply;
  reply.set_found(held.last.has_value());
  reply.set_chunks(held.chunks);
  reply.set_bytes(held.bytes);
  if (held.last) {
    reply.set_index(held.last->chunk.index);
    reply.set_length(held.last->committed.length);
  }
  return serialize(reply);
}

std::string encode_sync_start_reply(const std::vector<engine::ChunkState>& page, bool end) {
  pb::SyncStartReply reply;
  put_page(page, reply.mutable_chunks());
  reply.set_end(end);
  return serialize(reply);
}

std::string encode_dump_reply(const std::vector<engine::ChunkState>& page, bool end) {
  pb::DumpReply reply;
  put_page(page, reply.mutable_chunks());
  reply.set_end(end);
  return serialize(reply);
}

std::string encode_space_reply(const engine::Space& space) {
  pb::SpaceReply reply;
  reply.set_capacity_bytes(space.capacity_bytes);
  reply.set_free_bytes(space.free_bytes);
  reply.set_used_bytes(space.used_bytes);
  reply.set_chunks(space.chunks);
  return serialize(reply);
}

std::string encode_forward(const craq::Forward& forward, ChainId chain, TargetId from,
                           uint32_t piece_offset) {
  pb::ForwardRequest request;
  request.set_target_id(forward.to.target);
  request.set_chain_id(chain);
  request.set_chain_version(forward.chain_version);
  request.set_from_target(from);
  put_chunk(forward.chunk, request.mutable_chunk());
  request.set_kind(static_cast<pb::UpdateKind>(forward.kind));
  request.set_version(forward.version);
  request.set_offset(forward.offset);
  request.set_length(forward.length);
  request.set_chunk_size(forward.chunk_size);
  request.set_checksum(forward.checksum);
  put_identity(forward.identity, request.mutable_identity());
  request.set_resync(forward.resync);
  request.set_damaged(forward.lost);
  request.set_piece_offset(piece_offset);
  request.set_update_chain_version(forward.update_chain);
  return serialize(request);
}

std::string encode_sync_start(const craq::AskPeerChunks& ask, ChainId chain, TargetId from,
                              std::span<const craq::LoadDedup> rows, uint32_t limit) {
  pb::SyncStartRequest request;
  request.set_target_id(ask.peer.target);
  request.set_chain_id(chain);
  request.set_chain_version(ask.chain_version);
  request.set_from_target(from);
  if (ask.after) put_chunk(*ask.after, request.mutable_after());
  request.set_limit(limit);
  for (const auto& row : rows) {
    auto* out = request.add_dedup();
    put_identity(row.identity, out);
    put_chunk(row.chunk, out->mutable_chunk());
    out->set_version(row.version);
    out->set_chunk_length(row.chunk_length);
    out->set_checksum(row.checksum);
  }
  return serialize(request);
}

std::string encode_sync_done(const craq::TellPeerDone& tell, ChainId chain, TargetId from) {
  pb::SyncDoneRequest request;
  request.set_target_id(tell.peer.target);
  request.set_chain_id(chain);
  request.set_chain_version(tell.chain_version);
  request.set_from_target(from);
  return serialize(request);
}

std::string encode_fetch(const craq::Fetch& fetch, ChainId chain, TargetId from, uint32_t offset,
                         uint32_t length) {
  pb::FetchRequest request;
  request.set_target_id(fetch.from.target);
  request.set_chain_id(chain);
  request.set_chain_version(fetch.chain_version);
  request.set_from_target(from);
  put_chunk(fetch.chunk, request.mutable_chunk());
  request.set_offset(offset);
  request.set_length(length);
  request.set_settled(fetch.settled);
  return serialize(request);
}

Result<engine::VersionInfo> decode_fetch_reply(std::string_view body) {
  pb::FetchReply reply;
  if (Status s = parse(body, reply); !s.ok()) return s;
  if (reply.chunk_length() > kMaxChunkSize) return bad("chunk_length", "is beyond 64 MiB");
  return engine::VersionInfo{reply.version(), reply.update_chain_version(), reply.chunk_length(),
                             reply.checksum()};
}

Result<uint32_t> decode_update_reply(std::string_view body) {
  pb::UpdateReply reply;
  if (Status s = parse(body, reply); !s.ok()) return s;
  return reply.checksum();
}

Status decode_sync_start_reply(std::string_view body, craq::PeerChunks& page) {
  pb::SyncStartReply reply;
  if (Status s = parse(body, reply); !s.ok()) return s;
  if (reply.chunks_size() > static_cast<int>(kMaxPage))
    return bad("chunks", number(reply.chunks_size()) + " are more than were asked for");
  page.chunks.reserve(reply.chunks_size());
  for (const auto& info : reply.chunks()) {
    if (Status s = check_chunk(info.has_chunk(), info.chunk()); !s.ok()) return s;
    page.chunks.push_back({chunk_of(info.chunk()), info.version(), info.chain_version(),
                           info.length(), info.checksum(), info.pending() || info.damaged()});
  }
  page.end = reply.end();
  return {};
}

}  // namespace fs3::storage
