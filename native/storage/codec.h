// Messages of proto/storage.proto to events of the replica and back.
//
// Everything in a request is hostile until it went through here: a decoder checks every field
// against its bound and answers kBadRequest with the name of the first field that is wrong. Nothing
// is allocated by a number of the request. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "craq/replica.h"
#include "engine/types.h"

namespace fs3::storage {

constexpr uint32_t kMinChunkSize = 64u << 10;
constexpr uint32_t kMaxChunkSize = 64u << 20;
constexpr uint32_t kMaxPayload = 4u << 20;  // of one frame: a client's write, a piece of a chunk
constexpr uint32_t kMaxPage = 4096;         // chunks in one answer: about 250 KiB of body
constexpr uint32_t kMaxDedupRows = 16384;   // rows in one request: about 1.2 MiB of body

// Which replica a request is for.
struct Destination {
  TargetId target = 0;
  ChainId chain = 0;
};

struct ReadCommand {
  Destination to;
  craq::Read event;  // op and deadline_ns are the server's to fill in
  uint32_t offset = 0;
  uint32_t length = 0;
};
struct UpdateCommand {
  Destination to;
  craq::ClientUpdate event;
};
struct ForwardCommand {
  Destination to;
  craq::Forwarded event;
  uint32_t piece_offset = 0;
};
struct SyncStartCommand {
  Destination to;
  craq::SyncStart event;
  std::optional<ChunkId> after;
  uint32_t limit = 0;
};
struct SyncDoneCommand {
  Destination to;
  craq::SyncDone event;
};
struct FetchCommand {
  Destination to;
  craq::Read event;  // op and deadline_ns are the server's to fill in
  uint32_t offset = 0;
  uint32_t length = 0;
};
struct QueryLastCommand {
  Destination to;
  ChainVersion chain_version = 0;
  uint64_t inode = 0;
};
struct QueryChunksCommand {
  Destination to;
  ChainVersion chain_version = 0;
  uint64_t inode = 0;
  uint64_t first = 0;
  uint64_t step = 0;
  uint32_t chunk_size = 0;
  uint32_t limit = 0;  // runs
};
struct DumpCommand {
  TargetId target = 0;
  std::optional<ChunkId> after;
  uint32_t limit = 0;
};
struct ReadRawCommand {
  TargetId target = 0;
  ChunkId chunk;
  uint32_t offset = 0;
  uint32_t length = 0;
};

Result<ReadCommand> decode_read(std::string_view body);
Result<UpdateCommand> decode_write(std::string_view body);
Result<UpdateCommand> decode_truncate(std::string_view body);
Result<UpdateCommand> decode_remove(std::string_view body);
// `payload` is the length of the request's source: it must be what the fields say.
Result<ForwardCommand> decode_forward(std::string_view body, size_t payload);
Result<SyncStartCommand> decode_sync_start(std::string_view body);
Result<SyncDoneCommand> decode_sync_done(std::string_view body);
Result<FetchCommand> decode_fetch(std::string_view body);
Result<QueryLastCommand> decode_query_last(std::string_view body);
Result<QueryChunksCommand> decode_query_chunks(std::string_view body);
Result<DumpCommand> decode_dump(std::string_view body);
Result<ReadRawCommand> decode_read_raw(std::string_view body);

std::string encode_read_reply(uint32_t length, uint32_t chunk_length, ChunkVersion version);
// `whole` names the content of the chunk that `length` bytes of are sent.
std::string encode_fetch_reply(uint32_t length, const engine::VersionInfo& whole);
std::string encode_update_reply(const craq::Reply& reply);
std::string encode_query_last_reply(const engine::InodeChunks& held);
std::string encode_sync_start_reply(const std::vector<engine::ChunkState>& page, bool end);
std::string encode_dump_reply(const std::vector<engine::ChunkState>& page, bool end);
std::string encode_space_reply(const engine::Space& space);

// What this server asks of its successor.
std::string encode_forward(const craq::Forward& forward, ChainId chain, TargetId from,
                           uint32_t piece_offset);
std::string encode_sync_start(const craq::AskPeerChunks& ask, ChainId chain, TargetId from,
                              std::span<const craq::LoadDedup> rows, uint32_t limit);
std::string encode_sync_done(const craq::TellPeerDone& tell, ChainId chain, TargetId from);
std::string encode_fetch(const craq::Fetch& fetch, ChainId chain, TargetId from, uint32_t offset,
                         uint32_t length);
// Checksum of the whole chunk at the successor.
Result<uint32_t> decode_update_reply(std::string_view body);
// What names the content of the chunk; its length is checked against the largest chunk.
Result<engine::VersionInfo> decode_fetch_reply(std::string_view body);
// Fills `chunks` and `end`. A damaged chunk counts as pending: it is not as the sender has it.
Status decode_sync_start_reply(std::string_view body, craq::PeerChunks& page);

}  // namespace fs3::storage
