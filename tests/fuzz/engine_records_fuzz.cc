// Keys and values of a disk's metadata (native/engine/FORMAT.md). Input: which decoder, the bytes.
#include "base/crc32c.h"
#include "engine/records.h"
#include "fuzz.h"

namespace fs3::fuzz {
namespace {

using namespace engine;

// Every accepted record has one encoding.
template <typename T>
bool same_again(const Result<T>& decoded, std::string_view bytes) {
  if (!decoded.ok()) {
    FS3_CHECK(decoded.status().code() == EBADMSG && !decoded.status().detail().empty());
    return false;
  }
  FS3_CHECK(encode(decoded.value()) == bytes);
  return true;
}

bool decode(uint8_t which, std::string_view bytes) {
  switch (which) {
    case 0:
      return same_again(decode_head(bytes), bytes);
    case 1:
      return same_again(decode_version(bytes), bytes);
    case 2:
      return same_again(decode_target(bytes), bytes);
    case 3:
      return same_again(decode_opened(bytes), bytes);
    case 4:
      return same_again(decode_dedup(UpdateIdentity{}, bytes), bytes);
    default:
      return same_again(decode_patch(bytes), bytes);
  }
}

std::string key_of(const ParsedKey& parsed) {
  switch (parsed.kind) {
    case RowKind::kChunk:
      if (parsed.row == ChunkRow::kPatch) {
        return patch_key(parsed.target, parsed.chunk, parsed.version);
      }
      return chunk_key(parsed.target, parsed.chunk, parsed.row);
    case RowKind::kDedup:
      return dedup_key(parsed.target, parsed.identity);
    case RowKind::kBad:
      return bad_key(parsed.block);
    case RowKind::kTarget:
      return target_key(parsed.target);
    case RowKind::kOpened:
      return opened_key();
  }
  return {};
}

bool parse(std::string_view key) {
  auto parsed = parse_key(key);
  if (!parsed.ok()) return false;
  FS3_CHECK(key_of(*parsed) == key);
  return true;
}

}  // namespace

const size_t kSealedFrom = 1;

bool accepts(std::string_view input) {
  Input in(input);
  uint8_t which = in.byte() % 7;
  std::string_view bytes = in.rest();
  if (which == 5) return parse(bytes);
  std::string closed(bytes);
  uint32_t crc = crc32c(0, closed.data(), closed.size());
  closed.append(reinterpret_cast<const char*>(&crc), sizeof crc);
  (void)decode(which, closed);
  return decode(which, bytes);
}

}  // namespace fs3::fuzz
