// A stream of frames through net::Connection, cut into pieces as a socket may cut it, compared with
// a reader that has all bytes before it. Input: how the stream is cut, whether to put right
// checksums into it, the stream.
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "base/crc32c.h"
#include "fuzz.h"
#include "net/connection.h"
#include "net/peer.h"
#include "wire/frame.h"

namespace fs3::fuzz {
namespace {

using wire::kHeaderSize;
constexpr size_t kCrcAt = 60;
enum Options : uint8_t { kRepair = 1, kPause = 2, kDiscard = 4 };

struct Frame {
  wire::Header header;
  std::string head;
  std::string payload;  // empty when it was thrown away
};
struct Outcome {
  std::vector<Frame> frames;
  bool refused = false;
};

wire::Header header_at(const std::string& stream, size_t at, bool* good) {
  auto bytes = std::span<const std::byte>(reinterpret_cast<const std::byte*>(&stream[at]), 64);
  auto header = wire::decode(bytes.first<kHeaderSize>());
  *good = header.ok();
  return header.ok() ? *header : wire::Header();
}

// What the rules of WIRE.md say about the stream.
Outcome expected(const std::string& stream, bool discard) {
  Outcome out;
  size_t at = 0;
  while (stream.size() - at >= kHeaderSize) {
    bool good = false;
    wire::Header header = header_at(stream, at, &good);
    if (!good) out.refused = true;
    if (!good) break;
    size_t head = size_t{header.capability_len} + header.body_len;
    if (stream.size() - at - kHeaderSize < head + header.payload_len) break;
    Frame frame{header, stream.substr(at + kHeaderSize, head),
                stream.substr(at + kHeaderSize + head, header.payload_len)};
    bool sound = crc32c(0, frame.head.data(), frame.head.size()) == header.body_crc &&
                 crc32c(0, frame.payload.data(), frame.payload.size()) == header.payload_crc;
    if (!sound) out.refused = true;
    if (!sound) break;
    at += kHeaderSize + head + header.payload_len;
    if (discard) frame.payload.clear();
    out.frames.push_back(std::move(frame));
  }
  return out;
}

// Writes lengths that fit and checksums that hold into whatever stands where a header would.
void repair(std::string& stream) {
  for (size_t at = 0; stream.size() - at >= kHeaderSize;) {
    std::span<std::byte, kHeaderSize> bytes(reinterpret_cast<std::byte*>(&stream[at]), kHeaderSize);
    auto put = [&](size_t offset, uint32_t value) {
      std::memcpy(bytes.data() + offset, &value, sizeof value);
    };
    auto get = [&](size_t offset) {
      uint32_t value;
      std::memcpy(&value, bytes.data() + offset, sizeof value);
      return value;
    };
    put(0, wire::kMagic);
    bytes[4] = std::byte{1};
    size_t left = stream.size() - at - kHeaderSize;
    auto capability = static_cast<uint16_t>(get(28)) == 0 || left < 80 ? 0u : 80u;
    std::memcpy(bytes.data() + 28, &capability, sizeof(uint16_t));
    uint32_t body = static_cast<uint32_t>(get(32) % (left - capability + 1));
    uint32_t payload = static_cast<uint32_t>(get(36) % (left - capability - body + 1));
    put(32, body);
    put(36, payload);
    const char* head = stream.data() + at + kHeaderSize;
    put(40, crc32c(0, head, capability + body));
    put(44, crc32c(0, head + capability + body, payload));
    put(kCrcAt, crc32c(0, bytes.data(), kCrcAt));
    at += kHeaderSize + capability + body + payload;
  }
}

class Collector final : public net::Connection::Owner {
 public:
  Collector(size_t piece, uint8_t options) : piece_(piece), options_(options) {}

  Status frame_begins(const wire::Header& header,
                      std::vector<std::span<std::byte>>* target) override {
    FS3_CHECK(!ended_ && header.payload_len <= wire::kMaxPayload);
    payload_.clear();
    if (options_ & kDiscard) return Status();
    payload_.resize(header.payload_len);
    auto* bytes = reinterpret_cast<std::byte*>(payload_.data());
    for (size_t at = 0; at < payload_.size(); at += piece_) {
      target->push_back({bytes + at, std::min(piece_, payload_.size() - at)});
    }
    return Status();
  }
  void frame_arrived(const wire::Header& header, std::string head) override {
    FS3_CHECK(!ended_);
    if (header.kind == wire::Kind::kHello) {
      net::Principal principal;
      (void)net::check_client_hello(net::Identity{}, head, &principal);
    }
    outcome.frames.push_back({header, std::move(head), std::move(payload_)});
    payload_ = {};
    if (options_ & kPause) connection->pause_reading();
  }
  void frame_sent(uint64_t) override { FS3_CHECK(!"nothing was sent"); }
  void connection_closed(const Status& why) override {
    FS3_CHECK(!ended_ && why.code() == kBadRequest && !why.detail().empty());
    ended_ = outcome.refused = true;
  }

  Outcome outcome;
  net::Connection* connection = nullptr;

 private:
  const size_t piece_;
  const uint8_t options_;
  std::string payload_;
  bool ended_ = false;
};

Outcome received(const std::string& stream, uint8_t cut, uint8_t options) {
  static std::unique_ptr<Reactor> reactor = std::move(Reactor::create("fuzz").value());
  int ends[2];
  FS3_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
  net::Traffic traffic;
  size_t piece = cut == 0 ? stream.size() + 1 : cut;
  Collector owner(piece, options);
  auto connection = std::make_shared<net::Connection>(*reactor, ends[0], &owner, &traffic);
  owner.connection = connection.get();
  FS3_CHECK(connection->start().ok());
  size_t sent = 0;
  for (int idle = 0; connection->is_open() && idle < 2;) {
    size_t size = std::min(piece, stream.size() - sent);
    if (size > 0) FS3_CHECK(write(ends[1], &stream[sent], size) == static_cast<ssize_t>(size));
    sent += size;
    size_t before = owner.outcome.frames.size();
    connection->resume_reading();
    connection->on_events(EPOLLIN);
    bool progress = size > 0 || owner.outcome.frames.size() > before;
    idle = progress ? 0 : idle + 1;
  }
  connection->close();
  // What resume_reading() posted refers to the closed connection and must do nothing.
  if (options & kPause) {
    reactor->post([] { reactor->stop(); });
    reactor->run();
  }
  ::close(ends[1]);
  return std::move(owner.outcome);
}

}  // namespace

const size_t kSealedFrom = 2;

bool accepts(std::string_view input) {
  Input in(input);
  uint8_t cut = in.byte();
  uint8_t options = in.byte();
  std::string stream(in.rest().substr(0, 64 << 10));
  if (options & kRepair) repair(stream);
  Outcome want = expected(stream, options & kDiscard);
  Outcome got = received(stream, cut, options);
  FS3_CHECK(got.refused == want.refused && got.frames.size() == want.frames.size());
  size_t taken = 0;
  for (size_t i = 0; i < got.frames.size(); ++i) {
    FS3_CHECK(got.frames[i].head == want.frames[i].head);
    FS3_CHECK(got.frames[i].payload == want.frames[i].payload);
    taken += kHeaderSize + got.frames[i].head.size() + got.frames[i].header.payload_len;
  }
  return !got.refused && taken > 0 && taken == stream.size();
}

}  // namespace fs3::fuzz
