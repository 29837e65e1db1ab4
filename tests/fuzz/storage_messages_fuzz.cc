// Every decoder of native/storage/codec.h. Input: which one, for a FORWARD the length of its
// payload, the body.
#include "fuzz.h"
#include "storage.pb.h"
#include "storage/assembler.h"
#include "storage/codec.h"

namespace fs3::fuzz {
namespace {

using namespace storage;

void check_range(uint32_t offset, uint32_t length, uint32_t limit) {
  FS3_CHECK(offset <= limit && length <= limit - offset);
}

template <typename T>
bool refused(const Result<T>& decoded) {
  if (decoded.ok()) return false;
  // Names a field first: "field: why".
  FS3_CHECK(decoded.status().code() == kBadRequest);
  FS3_CHECK(decoded.status().detail().find(": ") != std::string_view::npos);
  return true;
}

bool take_read(std::string_view body) {
  auto command = decode_read(body);
  if (refused(command)) return false;
  check_range(command->offset, command->length, kMaxChunkSize);
  FS3_CHECK(command->length > 0 && command->length <= kMaxPayload);
  FS3_CHECK(command->event.chunk.inode != 0);
  return true;
}

bool take_update(const Result<UpdateCommand>& command) {
  if (refused(command)) return false;
  const auto& event = command.value().event;
  if (event.kind != UpdateKind::kRemove) check_range(event.offset, event.length, event.chunk_size);
  FS3_CHECK(event.chunk_size <= kMaxChunkSize && event.chunk.inode != 0);
  return true;
}

// What this server sends it also understands, as it was meant.
void check_forward_round_trip(const ForwardCommand& command, size_t payload) {
  const auto& e = command.event;
  craq::Forward out;
  out.to.target = command.to.target;
  out.chunk = e.chunk;
  out.kind = e.kind;
  out.version = e.version;
  out.chain_version = e.chain_version;
  out.update_chain = e.update_chain;
  out.offset = e.offset;
  out.length = e.length;
  out.chunk_size = e.chunk_size;
  out.checksum = e.checksum;
  out.identity = e.identity;
  out.resync = e.resync;
  std::string body = encode_forward(out, command.to.chain, e.from, command.piece_offset);
  auto again = decode_forward(body, payload);
  FS3_CHECK(again.ok() && again->to.target == command.to.target);
  FS3_CHECK(again->event.chunk == e.chunk && again->event.version == e.version);
  FS3_CHECK(again->event.identity == e.identity && again->event.kind == e.kind);
  FS3_CHECK(again->event.offset == e.offset && again->event.length == e.length);
  FS3_CHECK(again->piece_offset == command.piece_offset && again->event.resync == e.resync);
}

// Pieces of large chunks: whatever comes, no more than the fields say is put together.
void assemble(const ForwardCommand& command, uint32_t payload) {
  static Assembler assembler;
  bool pieces = command.event.kind == UpdateKind::kReplace;
  if (!pieces || payload > (64u << 10) || command.event.length > (1u << 20)) return;
  Buffer piece = Buffer::allocate(payload);
  std::memset(piece.data(), 7, payload);
  piece.resize(payload);
  auto whole = assembler.add(command, std::move(piece), 0);
  if (whole.ok() && *whole) FS3_CHECK((*whole)->size() == command.event.length);
  FS3_CHECK(assembler.open_chunks() <= Assembler::kMaxOpen);
  if (command.to.target == 0) assembler.expire(2 * Assembler::kIdleNs);
}

bool take_forward(std::string_view body, uint32_t payload) {
  auto command = decode_forward(body, payload);
  if (refused(command)) return false;
  const auto& event = command->event;
  check_range(event.offset, event.length, kMaxChunkSize);
  FS3_CHECK(payload <= kMaxPayload && payload <= event.length);
  FS3_CHECK(command->piece_offset + uint64_t{payload} <= event.length || payload == 0);
  check_forward_round_trip(*command, payload);
  assemble(*command, payload);
  return true;
}

bool take_sync_start(std::string_view body) {
  auto command = decode_sync_start(body);
  if (refused(command)) return false;
  const auto& event = command->event;
  FS3_CHECK(command->limit <= kMaxPage && event.dedup.size() <= kMaxDedupRows);
  craq::AskPeerChunks ask;
  ask.peer.target = command->to.target;
  ask.chain_version = event.chain_version;
  ask.after = command->after;
  std::string again =
      encode_sync_start(ask, command->to.chain, event.from, event.dedup, command->limit);
  auto twice = decode_sync_start(again);
  FS3_CHECK(twice.ok() && twice->event.dedup.size() == event.dedup.size());
  FS3_CHECK(twice->after == command->after && twice->limit == command->limit);
  for (size_t i = 0; i < event.dedup.size(); ++i) {
    FS3_CHECK(twice->event.dedup[i].identity == event.dedup[i].identity);
    FS3_CHECK(event.dedup[i].chunk_length <= kMaxChunkSize);
  }
  return true;
}

bool take_small(uint8_t which, std::string_view body) {
  switch (which) {
    case 0: {
      auto command = decode_sync_done(body);
      if (refused(command)) return false;
      craq::TellPeerDone tell;
      tell.peer.target = command->to.target;
      tell.chain_version = command->event.chain_version;
      FS3_CHECK(
          decode_sync_done(encode_sync_done(tell, command->to.chain, command->event.from)).ok());
      return true;
    }
    case 1: {
      auto command = decode_query_last(body);
      if (refused(command)) return false;
      FS3_CHECK(command->inode != 0);
      return true;
    }
    case 2: {
      auto command = decode_dump(body);
      if (refused(command)) return false;
      FS3_CHECK(command->limit >= 1 && command->limit <= kMaxPage);
      return true;
    }
    default: {
      auto command = decode_read_raw(body);
      if (refused(command)) return false;
      check_range(command->offset, command->length, kMaxChunkSize);
      return true;
    }
  }
}

bool take_fetch(std::string_view body) {
  auto command = decode_fetch(body);
  if (refused(command)) return false;
  const auto& event = command->event;
  FS3_CHECK(event.chunk.inode != 0 && event.from != 0);
  FS3_CHECK(command->offset <= kMaxChunkSize);
  FS3_CHECK(command->length > 0 && command->length <= kMaxPayload);
  craq::Fetch fetch;
  fetch.from.target = command->to.target;
  fetch.chunk = event.chunk;
  fetch.chain_version = event.chain_version;
  fetch.settled = !event.relaxed;
  auto again = decode_fetch(
      encode_fetch(fetch, command->to.chain, event.from, command->offset, command->length));
  FS3_CHECK(again.ok() && again->to.target == command->to.target);
  FS3_CHECK(again->event.chunk == event.chunk && again->event.from == event.from);
  FS3_CHECK(again->event.relaxed == event.relaxed && again->offset == command->offset);
  return true;
}

bool take_fetch_reply(std::string_view body) {
  auto whole = decode_fetch_reply(body);
  if (refused(whole)) return false;
  FS3_CHECK(whole->length <= kMaxChunkSize);
  return true;
}

bool take_reply(bool page, std::string_view body) {
  if (!page) return !refused(decode_update_reply(body));
  craq::PeerChunks chunks;
  if (!decode_sync_start_reply(body, chunks).ok()) return false;
  FS3_CHECK(chunks.chunks.size() <= kMaxPage);
  for (const auto& chunk : chunks.chunks) FS3_CHECK(chunk.chunk.inode != 0);
  return true;
}

}  // namespace

const size_t kSealedFrom = kNotSealed;

bool accepts(std::string_view input) {
  Input in(input);
  uint8_t which = in.byte() % 14;
  uint32_t payload = which == 4 ? in.take<uint32_t>() : 0;
  std::string_view body = in.rest();
  switch (which) {
    case 0:
      return take_read(body);
    case 1:
      return take_update(decode_write(body));
    case 2:
      return take_update(decode_truncate(body));
    case 3:
      return take_update(decode_remove(body));
    case 4:
      return take_forward(body, payload);
    case 5:
      return take_sync_start(body);
    case 6:
    case 7:
    case 8:
    case 9:
      return take_small(which - 6, body);
    case 12:
      return take_fetch(body);
    case 13:
      return take_fetch_reply(body);
    default:
      return take_reply(which == 11, body);
  }
}

}  // namespace fs3::fuzz
