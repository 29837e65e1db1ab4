// The capability token of proto/CAPABILITY.md: mint and verify.
//
// Thread safety: a Keyring is immutable after construction and may be shared; Verifier is one per
// connection or reactor (it remembers the last tokens it accepted, so a repeated token costs a
// comparison, not an HMAC).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fs3::auth {

constexpr size_t kCapabilitySize = 80;
constexpr size_t kKeySize = 32;
// How long after its expiry a token is still taken: clocks of two machines differ.
constexpr uint64_t kExpirySlackMs = 30'000;

enum Rights : uint8_t { kRead = 1, kWrite = 2, kTruncate = 4, kServer = 128 };

struct Capability {
  uint8_t rights = 0;
  uint16_t key_id = 0;
  std::array<uint8_t, 4> cluster{};
  uint64_t inode = 0;
  std::array<uint8_t, 16> client{};
  uint64_t issued_ms = 0;
  uint64_t expiry_ms = 0;
  std::array<uint8_t, 16> session{};
};

struct Key {
  uint16_t id = 0;
  std::string secret;  // 32 bytes
};

class Keyring {
 public:
  // `keys` newest first: the first mints, the first two verify.
  static Result<std::shared_ptr<const Keyring>> create(std::vector<Key> keys);
  // What fs3/auth/keyring.py serializes: entries of 34 bytes (id as little-endian u16, secret),
  // newest first. EINVAL says what is wrong.
  static Result<std::shared_ptr<const Keyring>> parse(std::string_view serialized);
  virtual ~Keyring() = default;
  // 80 bytes.
  virtual std::string mint(const Capability& capability) const = 0;
  // As verify, but takes expired tokens too: length, version, key and tag hold.
  virtual Result<Capability> authenticate(std::string_view token) const = 0;
  // kCapabilityDenied naming the first field that is wrong. `wall_ms` is the time of day in ms
  // since the epoch.
  virtual Result<Capability> verify(std::string_view token, uint64_t wall_ms) const = 0;
};

class Verifier {
 public:
  explicit Verifier(std::shared_ptr<const Keyring> keyring, std::string cluster_id);
  ~Verifier();
  // Ok when the token is valid, belongs to `client` (16 bytes: the peer's instance id), carries all
  // `rights`, and covers `inode`. A server token stands for every right and, with inode 0, for
  // every inode.
  Status check(std::string_view token, uint8_t rights, uint64_t inode, std::string_view client,
               uint64_t wall_ms);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fs3::auth
