#include "wire/frame.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>

#include "base/crc32c.h"
#include "vectors.h"
#include "wire/error_detail.h"
#include "wire/hello.h"

namespace fs3::wire {
namespace {

using Bytes = std::array<std::byte, kHeaderSize>;

Bytes header_bytes(const std::string& text) {
  Bytes bytes{};
  std::memcpy(bytes.data(), text.data(), std::min(text.size(), bytes.size()));
  return bytes;
}

Header header_of(const Json& fields) {
  auto u32 = [&](const char* name) { return static_cast<uint32_t>(fields[name].number); };
  Header header;
  header.kind = static_cast<Kind>(u32("kind"));
  header.method = static_cast<uint16_t>(u32("method"));
  header.flags = u32("flags");
  header.status = u32("status");
  header.request_id = fields["request_id"].number;
  header.deadline_ms = u32("deadline_ms");
  header.capability_len = static_cast<uint16_t>(u32("capability_len"));
  header.body_len = u32("body_len");
  header.payload_len = u32("payload_len");
  header.body_crc = u32("body_crc");
  header.payload_crc = u32("payload_crc");
  header.sink_len = u32("sink_len");
  return header;
}

void expect_equal(const Header& a, const Header& b) {
  Bytes x, y;
  encode(a, x);
  encode(b, y);
  EXPECT_EQ(x, y);
}

TEST(Frame, GoldenFramesDecodeAndEncode) {
  Json vectors = read_vectors("frames");
  ASSERT_GE(vectors["good"].items.size(), 7u);
  for (const Json& row : vectors["good"].items) {
    std::string bytes = row["bytes"].bytes();
    Bytes head = header_bytes(bytes);
    auto decoded = decode(head);
    ASSERT_TRUE(decoded.ok()) << row["name"].text << decoded.status().to_string();
    expect_equal(*decoded, header_of(row["fields"]));
    Bytes again;
    encode(*decoded, again);
    EXPECT_EQ(again, head) << row["name"].text;
    size_t head_len = decoded->capability_len + decoded->body_len;
    ASSERT_EQ(bytes.size(), kHeaderSize + head_len + decoded->payload_len);
    EXPECT_EQ(crc32c(0, bytes.data() + kHeaderSize, head_len), decoded->body_crc);
    EXPECT_EQ(crc32c(0, bytes.data() + kHeaderSize + head_len, decoded->payload_len),
              decoded->payload_crc);
  }
}

TEST(Frame, BadHeadersNameTheFirstWrongField) {
  Json vectors = read_vectors("frames");
  ASSERT_GE(vectors["bad"].items.size(), 20u);
  for (const Json& row : vectors["bad"].items) {
    auto decoded = decode(header_bytes(row["bytes"].bytes()));
    ASSERT_FALSE(decoded.ok()) << row["field"].text;
    EXPECT_EQ(decoded.status().code(), kBadRequest);
    std::string expected = row["field"].text + ": ";
    EXPECT_EQ(std::string(decoded.status().detail()).substr(0, expected.size()), expected);
  }
}

TEST(Frame, EverySingleByteChangeOfAHeaderIsAnError) {
  const Json vectors = read_vectors("frames");
  for (const Json& row : vectors["good"].items) {
    Bytes good = header_bytes(row["bytes"].bytes());
    for (size_t at = 0; at < good.size(); ++at) {
      for (int change = 1; change < 256; ++change) {
        Bytes bad = good;
        bad[at] ^= static_cast<std::byte>(change);
        ASSERT_FALSE(decode(bad).ok()) << row["name"].text << " byte " << at;
      }
    }
  }
}

// With a checksum that fits, a change is an error or another message that encodes to those bytes:
// nothing is read over.
TEST(Frame, EveryChangeWithAFittingChecksumIsAnErrorOrSeen) {
  size_t accepted = 0;
  const Json vectors = read_vectors("frames");
  for (const Json& row : vectors["good"].items) {
    Bytes good = header_bytes(row["bytes"].bytes());
    for (size_t at = 0; at < 60; ++at) {
      for (int change = 1; change < 256; ++change) {
        Bytes changed = good;
        changed[at] ^= static_cast<std::byte>(change);
        uint32_t crc = crc32c(0, changed.data(), 60);
        std::memcpy(changed.data() + 60, &crc, 4);
        auto decoded = decode(changed);
        if (!decoded.ok()) continue;
        ++accepted;
        Bytes again;
        encode(*decoded, again);
        ASSERT_EQ(again, changed) << row["name"].text << " byte " << at;
      }
    }
  }
  EXPECT_GT(accepted, 1000u);
}

TEST(Frame, RandomBytesNeverDecode) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200'000; ++round) {
    Bytes bytes;
    for (auto& byte : bytes) byte = static_cast<std::byte>(random());
    if (round % 2 == 0) std::memcpy(bytes.data(), "FS3F\x01", 5);
    ASSERT_FALSE(decode(bytes).ok());
  }
}

TEST(Frame, EncodingWhatNobodyWouldTakeIsAProgrammingError) {
  Bytes out;
  Header header;  // request id 0
  EXPECT_DEATH(encode(header, out), "check failed");
  header.request_id = 1;
  header.body_len = kMaxBody + 1;
  EXPECT_DEATH(encode(header, out), "check failed");
}

TEST(Frame, CheckCrcNamesTheField) {
  EXPECT_TRUE(check_crc("body_crc", 5, 5).ok());
  EXPECT_EQ(check_crc("payload_crc", 5, 6).detail(), "payload_crc: is 5, computed 6");
}

TEST(Hello, GoldenVectorsBothWays) {
  Json vectors = read_vectors("frames");
  ASSERT_GE(vectors["hello"].items.size(), 4u);
  for (const Json& row : vectors["hello"].items) {
    Hello hello{row["cluster_id"].array<16>(), row["instance_id"].array<16>(),
                static_cast<uint8_t>(row["role"].number),
                static_cast<uint32_t>(row["node_id"].number)};
    EXPECT_EQ(encode_hello(hello), row["bytes"].bytes());
    auto decoded = decode_hello(row["bytes"].bytes());
    ASSERT_TRUE(decoded.ok());
    EXPECT_EQ(*decoded, hello);
  }
}

TEST(Hello, BadOnesNameTheField) {
  std::string good = encode_hello(Hello{});
  auto detail = [](const std::string& body) {
    auto decoded = decode_hello(body);
    return decoded.ok() ? std::string() : std::string(decoded.status().detail());
  };
  EXPECT_EQ(detail(good), "");
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(detail(good.substr(0, size)).substr(0, 7), "length:");
  }
  EXPECT_EQ(detail(good + "x").substr(0, 7), "length:");
  for (size_t at : {33, 34, 35}) {
    std::string bad = good;
    bad[at] = 1;
    EXPECT_EQ(detail(bad).substr(0, 9), "reserved:");
  }
  for (char role : {'\0', '\5', '\xff'}) {
    std::string bad = good;
    bad[32] = role;
    EXPECT_EQ(detail(bad).substr(0, 5), "role:");
  }
  std::string bad = good;
  bad[36] = 1;
  EXPECT_EQ(detail(bad).substr(0, 8), "node id:");
}

TEST(ErrorDetail, TravelsThere) {
  Status status(kBusy, "storage-2/write", "the queue is full");
  Status back = decode_error(kBusy, encode_error(status));
  EXPECT_EQ(back.to_string(), status.to_string());
}

TEST(ErrorDetail, AnyBytesBecomeText) {
  Status status(kBusy, "meta", std::string("no entry '\xff\x00\xc3\xa4\xed\xa0\x80\n'", 19));
  Status back = decode_error(kBusy, encode_error(status));
  EXPECT_EQ(back.detail(), "no entry '\\xff\\x00\xc3\xa4\\xed\\xa0\\x80\\x0a'");
}

TEST(ErrorDetail, LongTextsAreCut) {
  Status back = decode_error(kBusy, encode_error(Status(kBusy, "x", std::string(1 << 20, 'y'))));
  EXPECT_EQ(back.detail().size(), 4096u);
}

TEST(ErrorDetail, GarbageKeepsTheCode) {
  Status status = decode_error(kStaleUpdate, "\xff\xff\xff");
  EXPECT_EQ(status.code(), kStaleUpdate);
  EXPECT_NE(status.detail().find("does not decode"), std::string::npos);
}

}  // namespace
}  // namespace fs3::wire
