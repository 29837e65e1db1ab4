// Raw bytes against a server, and a raw server against a channel: what comes from a peer that does
// not keep to proto/WIRE.md, or stops in the middle.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>

#include "base/crc32c.h"
#include "net/peer.h"
#include "rpc_fixture.h"
#include "vectors.h"
#include "wire/error_detail.h"
#include "wire/frame.h"

namespace fs3::net {
namespace {

std::string as_text(const std::array<std::byte, wire::kHeaderSize>& header) {
  return {reinterpret_cast<const char*>(header.data()), header.size()};
}

std::string frame(wire::Header header, const std::string& head = "",
                  const std::string& payload = "") {
  header.body_len = static_cast<uint32_t>(head.size() - header.capability_len);
  header.body_crc = crc32c(0, head.data(), head.size());
  header.payload_len = static_cast<uint32_t>(payload.size());
  header.payload_crc = crc32c(0, payload.data(), payload.size());
  std::array<std::byte, wire::kHeaderSize> bytes;
  wire::encode(header, bytes);
  return as_text(bytes) + head + payload;
}

std::string hello(Role role = Role::kClient) {
  std::string body = hello_body(identity("", role, 0));
  return as_text(hello_header(body)) + body;
}

std::string request(uint16_t method, uint64_t id, const std::string& body,
                    const std::string& payload = "", uint32_t sink = 0) {
  wire::Header header;
  header.method = method;
  header.request_id = id;
  header.sink_len = sink;
  return frame(header, body, payload);
}

// A blocking socket that speaks whatever it likes.
class RawPeer {
 public:
  explicit RawPeer(int fd) : fd_(fd) {}
  explicit RawPeer(const std::string& address) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  }
  ~RawPeer() { close(fd_); }
  RawPeer(RawPeer&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

  void say(const std::string& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      ssize_t n = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return;  // the other side has closed: what the test is about
      sent += static_cast<size_t>(n);
    }
  }
  // Exactly `size` bytes, or fewer when the other side closes first.
  std::string hear(size_t size) {
    std::string bytes(size, '\0');
    size_t got = 0;
    while (got < size) {
      ssize_t n = recv(fd_, bytes.data() + got, size - got, 0);
      if (n <= 0) break;
      got += static_cast<size_t>(n);
    }
    bytes.resize(got);
    return bytes;
  }
  std::pair<wire::Header, std::string> hear_frame() {
    std::string head = hear(wire::kHeaderSize);
    if (head.size() < wire::kHeaderSize) return {};
    auto* bytes = reinterpret_cast<const std::byte*>(head.data());
    auto header = wire::decode(std::span<const std::byte, wire::kHeaderSize>(bytes, 64));
    EXPECT_TRUE(header.ok()) << header.status().to_string();
    if (!header.ok()) return {};
    return {*header, hear(header->body_len + header->payload_len)};
  }
  // True when the other side closes; bytes before that are thrown away.
  bool closed() {
    char buffer[4096];
    for (;;) {
      pollfd poll_fd{fd_, POLLIN, 0};
      if (poll(&poll_fd, 1, 20'000) != 1) return false;
      if (recv(fd_, buffer, sizeof buffer, 0) <= 0) return true;
    }
  }
  void half_close() { shutdown(fd_, SHUT_WR); }
  void reset() {
    linger now{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

class Garbage : public testing::Test {
 protected:
  RawPeer dial() { return RawPeer(server_.address()); }
  RawPeer greeted() {
    RawPeer peer = dial();
    peer.say(hello());
    EXPECT_EQ(peer.hear_frame().first.kind, wire::Kind::kHello);
    return peer;
  }
  void expect_alive() {
    RawPeer peer = greeted();
    peer.say(request(kEcho, 1, "alive"));
    EXPECT_EQ(peer.hear_frame().second, "alive");
  }

  TestServer server_{"tcp://127.0.0.1:0", ""};
};

TEST_F(Garbage, ARawPeerCanSpeakTheProtocol) {
  RawPeer peer = greeted();
  peer.say(request(kMirror, 5, "", std::string(1000, 'p'), 1000) + request(kEcho, 6, "b"));
  auto [first, payload] = peer.hear_frame();
  EXPECT_EQ(first.request_id, 5u);
  EXPECT_EQ(payload, std::string(1000, 'p'));
  EXPECT_EQ(peer.hear_frame().second, "b");
}

TEST_F(Garbage, BytesAtAnyPaceMakeTheSameFrames) {
  RawPeer peer = greeted();
  std::string bytes =
      request(kMirror, 5, "body", std::string(300, 'p'), 300) + request(kEcho, 6, "b");
  for (char byte : bytes) peer.say(std::string(1, byte));
  EXPECT_EQ(peer.hear_frame().second, std::string(300, 'p'));
  EXPECT_EQ(peer.hear_frame().second, "b");
}

TEST_F(Garbage, TextAndNoiseCloseTheConnection) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 200; ++round) {
    RawPeer peer = dial();
    std::string noise = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + std::string(64, ' ');
    if (round > 0) {
      noise.assign(64 + random() % 5000, '\0');
      for (char& c : noise) c = static_cast<char>(random());
    }
    if (round % 2 == 1) noise = hello() + noise;
    peer.say(noise);
    ASSERT_TRUE(peer.closed());
  }
  server_.wait_until([&] { return server_.statistics().bad_frames == 200; });
  expect_alive();
}

TEST_F(Garbage, TheFirstFrameMustBeAHelloAndTheOnlyOne) {
  RawPeer early = dial();
  early.say(request(kEcho, 1, "x"));
  EXPECT_TRUE(early.closed());
  RawPeer twice = greeted();
  twice.say(hello());
  EXPECT_TRUE(twice.closed());
  RawPeer reply = greeted();
  wire::Header header;
  header.kind = wire::Kind::kReply;
  header.request_id = 1;
  reply.say(frame(header));
  EXPECT_TRUE(reply.closed());
  EXPECT_EQ(server_.statistics().requests, 0u);
}

TEST_F(Garbage, EveryBadHeaderClosesTheConnection) {
  const Json vectors = read_vectors("frames");
  for (const Json& row : vectors["bad"].items) {
    RawPeer peer = greeted();
    peer.say(row["bytes"].bytes() + std::string(1000, 'x'));
    ASSERT_TRUE(peer.closed()) << row["field"].text;
  }
  uint64_t all = vectors["bad"].items.size();
  server_.wait_until([&] { return server_.statistics().bad_frames == all; });
  EXPECT_EQ(server_.statistics().requests, 0u);
  expect_alive();
}

TEST_F(Garbage, EveryTruncationOfAFrameEndsWithoutARequest) {
  std::string whole = request(kEcho, 1, "some body", "some payload");
  for (size_t size = 0; size < whole.size(); ++size) {
    RawPeer peer = greeted();
    peer.say(whole.substr(0, size));
    peer.half_close();
    ASSERT_TRUE(peer.closed()) << size;
  }
  EXPECT_EQ(server_.statistics().requests, 0u);
  expect_alive();
}

TEST_F(Garbage, EverySingleByteChangeOfAFrameEndsWithoutARequest) {
  std::string whole = request(kEcho, 1, "some body", "some payload");
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string bad = whole;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    RawPeer peer = greeted();
    peer.say(bad);
    ASSERT_TRUE(peer.closed()) << at;
  }
  EXPECT_EQ(server_.statistics().requests, 0u);
  server_.wait_until([&] { return server_.statistics().bad_frames == whole.size(); });
}

TEST_F(Garbage, AnOpenRequestIdMayNotBeReused) {
  RawPeer peer = greeted();
  peer.say(request(kHold, 9, ""));
  server_.wait_for_held(1);
  peer.say(request(kEcho, 9, ""));
  EXPECT_TRUE(peer.closed());
  server_.release([](ServerCall& c) { c.reply(Status(), ""); });
}

TEST_F(Garbage, APeerThatIsKilledWithRequestsInFlight) {
  for (int round = 0; round < 20; ++round) {
    RawPeer peer = greeted();
    for (uint64_t id = 1; id <= 10; ++id)
      peer.say(request(kHold, id, "", std::string(10'000, 'x')));
    server_.wait_for_held(10);
    peer.reset();
    server_.release_all([](ServerCall& c) { c.reply(Status(), std::string(100'000, 'r')); });
  }
  server_.wait_until([&] {
    auto seen = server_.statistics();
    return seen.open_connections == 0 && seen.requests_in_flight == 0;
  });
  expect_alive();
}

TEST_F(Garbage, ARequestWithoutReplyGetsNone) {
  RawPeer peer = greeted();
  wire::Header header;
  header.method = kEcho;
  header.request_id = 1;
  header.flags = wire::kFlagNoReply;
  peer.say(frame(header, "silent") + request(kEcho, 2, "loud"));
  EXPECT_EQ(peer.hear_frame().second, "loud");
  server_.wait_until([&] { return server_.statistics().requests_in_flight == 0; });
}

TEST_F(Garbage, TheServerStopsReadingAt256Requests) {
  RawPeer peer = greeted();
  std::string many;
  for (uint64_t id = 1; id <= 300; ++id) many += request(kHold, id, "");
  peer.say(many);
  server_.wait_for_held(256);
  expect_alive();  // another connection is served, and gives the first time to be read further
  EXPECT_EQ(server_.held(), 256u);
  for (int i = 0; i < 300; ++i) server_.release([](ServerCall& c) { c.reply(Status(), "r"); });
  for (int i = 0; i < 300; ++i) EXPECT_EQ(peer.hear_frame().second, "r");
}

TEST_F(Garbage, RepliesNobodyReadsAreBounded) {
  RawPeer peer = greeted();
  std::string asked;
  for (uint64_t id = 1; id <= 100; ++id) asked += request(kHold, id, "", "", 4 << 20);
  peer.say(asked);
  server_.wait_for_held(16);  // 16 x 4 MiB of promised replies
  EXPECT_EQ(server_.held(), 16u);
  for (int i = 0; i < 16; ++i) {
    server_.release([](ServerCall& c) {
      c.push(Buffer::allocate(c.sink_length()));
      c.reply(Status(), "");
    });
  }
  expect_alive();
  // The kernel takes a few of them; the rest stay counted until somebody reads.
  EXPECT_LT(server_.held(), 16u);
  EXPECT_GT(server_.statistics().requests_in_flight, 0u);
}

// ---- a channel against servers that misbehave ------------------------------------------------

class BadServer : public testing::Test {
 protected:
  BadServer() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd_, 16), 0);
    socklen_t length = sizeof address;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &length);
    address_ = "tcp://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    channel_ = open_channel(*client_, address_, "");
  }
  ~BadServer() override { close(fd_); }

  RawPeer accept_greeted() {
    RawPeer peer(accept(fd_, nullptr, nullptr));
    EXPECT_EQ(peer.hear_frame().first.kind, wire::Kind::kHello);
    peer.say(hello(Role::kStorage));
    return peer;
  }
  std::string reply_to(const wire::Header& asked, const std::string& payload, uint32_t status = 0) {
    wire::Header header;
    header.kind = wire::Kind::kReply;
    header.method = asked.method;
    header.request_id = asked.request_id;
    header.status = status;
    return frame(header, "", payload);
  }
  Pending ask(size_t sink_len, int64_t timeout_ns = 0) {
    sink_.assign(sink_len, std::byte{0x11});
    CallSpec spec;
    spec.method = kEcho;
    if (sink_len > 0) spec.sink = {{Channel::register_memory(sink_.data(), sink_len), 0, sink_len}};
    if (timeout_ns != 0) spec.deadline_ns = now_ns() + timeout_ns;
    return call_async(*channel_, std::move(spec));
  }

  int fd_ = socket(AF_INET, SOCK_STREAM, 0);
  std::string address_;
  std::vector<std::byte> sink_;
  std::unique_ptr<ReactorThread> client_ = std::move(ReactorThread::create("client")).value();
  std::shared_ptr<Channel> channel_;
};

TEST_F(BadServer, AReplyLargerThanTheSinkIsRefused) {
  Pending pending = ask(10);
  RawPeer peer = accept_greeted();
  peer.say(reply_to(peer.hear_frame().first, std::string(11, 'x')));
  EXPECT_EQ(pending.wait().status.code(), kConnectionLost);
  EXPECT_TRUE(peer.closed());
}

TEST_F(BadServer, AConnectionCutInThePayload) {
  Pending pending = ask(1 << 20);
  RawPeer peer = accept_greeted();
  std::string whole = reply_to(peer.hear_frame().first, std::string(1 << 20, 'x'));
  peer.say(whole.substr(0, whole.size() - 1));
  peer.reset();
  Reply reply = pending.wait();
  EXPECT_EQ(reply.status.code(), kConnectionLost);
  EXPECT_EQ(reply.sink_length, 0u);
}

TEST_F(BadServer, AFlippedBitInThePayload) {
  Pending pending = ask(1000);
  RawPeer peer = accept_greeted();
  std::string whole = reply_to(peer.hear_frame().first, std::string(1000, 'x'));
  whole[500] ^= 1;
  peer.say(whole);
  Reply reply = pending.wait();
  EXPECT_EQ(reply.status.code(), kConnectionLost);
  EXPECT_NE(reply.status.detail().find("payload_crc"), std::string::npos);
}

TEST_F(BadServer, TheSinkIsNotWrittenAfterTheDeadline) {
  Pending pending = ask(1 << 20, 30'000'000);
  RawPeer peer = accept_greeted();
  std::string whole = reply_to(peer.hear_frame().first, std::string(1 << 20, 'x'));
  size_t half = whole.size() / 2;
  peer.say(whole.substr(0, half));
  EXPECT_EQ(pending.wait().status.code(), kTimedOut);
  std::vector<std::byte> seen = sink_;
  // Half of it had come, the rest is thrown away, and the connection stays usable.
  peer.say(whole.substr(half));
  std::vector<std::byte> old;
  old.swap(sink_);
  Pending next = ask(3);
  auto [asked, body] = peer.hear_frame();
  peer.say(reply_to(asked, "abc"));
  Reply reply = next.wait();
  EXPECT_TRUE(reply.status.ok()) << reply.status.to_string();
  EXPECT_EQ(reply.sink_length, 3u);
  EXPECT_TRUE(old == seen);
}

TEST_F(BadServer, RepliesToUnknownRequestsAreDropped) {
  Pending pending = ask(100);
  RawPeer peer = accept_greeted();
  wire::Header asked = peer.hear_frame().first;
  wire::Header unknown = asked;
  unknown.request_id = 4711;
  peer.say(reply_to(unknown, std::string(1 << 20, 'u')) + reply_to(asked, "mine") +
           reply_to(asked, "twice"));
  Reply reply = pending.wait();
  EXPECT_TRUE(reply.status.ok());
  EXPECT_EQ(reply.sink_length, 4u);
  EXPECT_EQ(std::memcmp(sink_.data(), "mine", 4), 0);
}

TEST_F(BadServer, AServerMustGreetFirstAndSendsNoRequests) {
  Pending first = ask(0);
  {
    RawPeer peer(accept(fd_, nullptr, nullptr));
    peer.hear_frame();
    peer.say(reply_to(peer.hear_frame().first, ""));
    EXPECT_EQ(first.wait().status.code(), kConnectionLost);
  }
  Pending second = ask(0);
  RawPeer peer = accept_greeted();
  peer.say(request(kEcho, 1, ""));
  EXPECT_EQ(second.wait().status.code(), kConnectionLost);
}

TEST_F(BadServer, APeerThatHangsUpAtOnce) {
  for (int round = 0; round < 3; ++round) {
    Pending pending = ask(0);
    RawPeer(accept(fd_, nullptr, nullptr)).reset();
    EXPECT_EQ(pending.wait().status.code(), kConnectionLost);
    EXPECT_FALSE(channel_->healthy());
  }
}

TEST_F(BadServer, ADeadlineWhileConnecting) {
  Pending pending = ask(0, 20'000'000);  // accepted by the kernel, greeted by nobody
  EXPECT_EQ(pending.wait().status.code(), kTimedOut);
}

}  // namespace
}  // namespace fs3::net
