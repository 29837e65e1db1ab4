#include "base/crc32c.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "vectors.h"

namespace fs3 {
namespace {

uint32_t bitwise(const std::vector<uint8_t>& bytes) {
  uint32_t crc = 0xffffffff;
  for (uint8_t byte : bytes) {
    crc ^= byte;
    for (int i = 0; i < 8; ++i) crc = (crc & 1) ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}

std::vector<uint8_t> random_bytes(size_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> bytes(size);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

TEST(Crc32c, CheckValue) {
  EXPECT_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
  EXPECT_EQ(crc32c(0, "", 0), 0u);
  EXPECT_EQ(crc32c(0, std::string(32, '\0').data(), 32), 0x8a9136aau);  // RFC 3720 B.4
  EXPECT_EQ(crc32c(0, std::string(32, '\xff').data(), 32), 0x62a8ab43u);
}

TEST(Crc32c, GoldenVectors) {
  Json vectors = read_vectors("crc32c");
  ASSERT_GE(vectors["crc32c"].items.size(), 10u);
  for (const Json& row : vectors["crc32c"].items) {
    std::string data = row["data"].bytes();
    EXPECT_EQ(crc32c(0, data.data(), data.size()), row["crc"].number);
  }
  ASSERT_GE(vectors["combine"].items.size(), 5u);
  for (const Json& row : vectors["combine"].items) {
    auto part = [&](const char* name) { return static_cast<uint32_t>(row[name].number); };
    EXPECT_EQ(crc32c_combine(part("crc_a"), part("crc_b"), row["size_b"].number), part("crc"));
  }
}

TEST(Crc32c, EqualsTheDefinitionAtEveryLengthAndAlignment) {
  auto bytes = random_bytes(600, 1);
  for (size_t start = 0; start < 9; ++start) {
    for (size_t size = 0; start + size <= bytes.size(); size += 1 + size / 7) {
      std::vector<uint8_t> part(bytes.begin() + static_cast<long>(start),
                                bytes.begin() + static_cast<long>(start + size));
      ASSERT_EQ(crc32c(0, bytes.data() + start, size), bitwise(part)) << start << " " << size;
    }
  }
}

TEST(Crc32c, ContinuesFromASeed) {
  auto bytes = random_bytes(10'000, 2);
  uint32_t whole = crc32c(0, bytes.data(), bytes.size());
  for (size_t cut : {0ul, 1ul, 63ul, 4096ul, 9'999ul, 10'000ul}) {
    uint32_t head = crc32c(0, bytes.data(), cut);
    EXPECT_EQ(crc32c(head, bytes.data() + cut, bytes.size() - cut), whole);
  }
}

TEST(Crc32c, CombinesWithoutTheBytes) {
  auto bytes = random_bytes(70'000, 3);
  uint32_t whole = crc32c(0, bytes.data(), bytes.size());
  for (size_t cut : {0ul, 1ul, 7ul, 4095ul, 65'536ul, 69'999ul, 70'000ul}) {
    uint32_t head = crc32c(0, bytes.data(), cut);
    uint32_t tail = crc32c(0, bytes.data() + cut, bytes.size() - cut);
    EXPECT_EQ(crc32c_combine(head, tail, bytes.size() - cut), whole) << cut;
  }
}

TEST(Crc32c, CombineTakesLengthsBeyondMemory) {
  // Appending a then b zero-length-checksummed runs must equal appending a + b at once.
  uint64_t a = (uint64_t{1} << 40) + 12'345;
  uint64_t b = (uint64_t{1} << 61) + 7;
  uint32_t step = crc32c_combine(crc32c_combine(0xdeadbeef, 0, a), 0, b);
  EXPECT_EQ(step, crc32c_combine(0xdeadbeef, 0, a + b));
}

}  // namespace
}  // namespace fs3
