#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <array>

namespace fs3 {
namespace {

// Polynomials over GF(2) modulo the Castagnoli polynomial, reflected: bit 31 is x^0.
constexpr uint32_t kPolynomial = 0x82f63b78;
constexpr uint32_t kOne = 0x80000000;

constexpr uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = kOne; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b & 1) ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

// Entry k is x^(8 * 2^k): appending 2^k bytes multiplies the checksum's polynomial by it.
constexpr std::array<uint32_t, 64> kAppendPowers = [] {
  std::array<uint32_t, 64> powers{};
  powers[0] = kOne >> 8;
  for (size_t k = 1; k < powers.size(); ++k) powers[k] = multiply(powers[k - 1], powers[k - 1]);
  return powers;
}();

}  // namespace

uint32_t crc32c(uint32_t seed, const void* data, size_t size) {
  // isa-l leaves the initial and final inversion to the caller and takes the length as an int.
  constexpr size_t kStepMax = size_t{1} << 30;
  auto* bytes = static_cast<unsigned char*>(const_cast<void*>(data));
  uint32_t crc = ~seed;
  while (size > 0) {
    size_t step = std::min(size, kStepMax);
    crc = crc32_iscsi(bytes, static_cast<int>(step), crc);
    bytes += step;
    size -= step;
  }
  return ~crc;
}

uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t size_b) {
  for (size_t k = 0; size_b != 0; ++k, size_b >>= 1) {
    if (size_b & 1) crc_a = multiply(kAppendPowers[k], crc_a);
  }
  return crc_a ^ crc_b;
}

}  // namespace fs3
