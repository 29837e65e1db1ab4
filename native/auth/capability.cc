#include "auth/capability.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace fs3::auth {
namespace {

constexpr uint8_t kVersion = 1;
constexpr size_t kSignedSize = 64;
constexpr size_t kTagSize = 16;
constexpr size_t kKeysThatVerify = 2;
constexpr size_t kSerializedKeySize = 2 + kKeySize;
static_assert(kSignedSize + kTagSize == kCapabilitySize);
static_assert(std::endian::native == std::endian::little, "tokens are little-endian");

enum Offset : size_t {
  kAtVersion = 0,
  kAtRights = 1,
  kAtKeyId = 2,
  kAtCluster = 4,
  kAtInode = 8,
  kAtClient = 16,
  kAtIssued = 32,
  kAtExpiry = 40,
  kAtSession = 48,
  kAtTag = kSignedSize,
};

Status denied(std::string_view detail) {
  return Status(kCapabilityDenied, "auth/capability", detail);
}
Status invalid(std::string_view detail) { return Status(EINVAL, "auth/keyring", detail); }

template <typename T>
void put(std::string* token, size_t at, const T& value) {
  std::memcpy(token->data() + at, &value, sizeof value);
}
template <typename T>
void get(std::string_view token, size_t at, T* value) {
  std::memcpy(value, token.data() + at, sizeof *value);
}

std::array<unsigned char, kTagSize> tag_of(std::string_view signed_part, const Key& key) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int length = 0;
  const unsigned char* made =
      HMAC(EVP_sha256(), key.secret.data(), static_cast<int>(key.secret.size()),
           reinterpret_cast<const unsigned char*>(signed_part.data()), signed_part.size(), digest,
           &length);
  FS3_CHECK(made != nullptr && length == 32);
  std::array<unsigned char, kTagSize> tag;
  std::memcpy(tag.data(), digest, tag.size());
  return tag;
}

Capability unpack(std::string_view token) {
  Capability capability;
  get(token, kAtRights, &capability.rights);
  get(token, kAtKeyId, &capability.key_id);
  get(token, kAtCluster, &capability.cluster);
  get(token, kAtInode, &capability.inode);
  get(token, kAtClient, &capability.client);
  get(token, kAtIssued, &capability.issued_ms);
  get(token, kAtExpiry, &capability.expiry_ms);
  get(token, kAtSession, &capability.session);
  return capability;
}

Status check_expiry(const Capability& capability, uint64_t wall_ms) {
  // Compared without a sum that could wrap around.
  if (wall_ms <= capability.expiry_ms || wall_ms - capability.expiry_ms <= kExpirySlackMs) {
    return Status();
  }
  return denied("expiry: " + std::to_string((wall_ms - capability.expiry_ms) / 1000) +
                " s ago; open or sync the file again");
}

class HmacKeyring final : public Keyring {
 public:
  explicit HmacKeyring(std::vector<Key> keys) : keys_(std::move(keys)) {}
  ~HmacKeyring() override {
    for (Key& key : keys_) OPENSSL_cleanse(key.secret.data(), key.secret.size());
  }

  std::string mint(const Capability& capability) const override {
    std::string token(kCapabilitySize, '\0');
    put(&token, kAtVersion, kVersion);
    put(&token, kAtRights, capability.rights);
    put(&token, kAtKeyId, keys_.front().id);
    put(&token, kAtCluster, capability.cluster);
    put(&token, kAtInode, capability.inode);
    put(&token, kAtClient, capability.client);
    put(&token, kAtIssued, capability.issued_ms);
    put(&token, kAtExpiry, capability.expiry_ms);
    put(&token, kAtSession, capability.session);
    put(&token, kAtTag, tag_of(std::string_view(token).substr(0, kSignedSize), keys_.front()));
    return token;
  }

  Result<Capability> authenticate(std::string_view token) const override {
    if (token.size() != kCapabilitySize) {
      return denied("length: is " + std::to_string(token.size()) + ", must be 80");
    }
    uint8_t version = 0;
    get(token, kAtVersion, &version);
    if (version != kVersion) return denied("version: is " + std::to_string(version));
    Capability capability = unpack(token);
    const Key* key = find(capability.key_id);
    if (key == nullptr) {
      return denied("key id: " + std::to_string(capability.key_id) +
                    " is neither the current nor the previous key");
    }
    auto tag = tag_of(token.substr(0, kSignedSize), *key);
    if (CRYPTO_memcmp(tag.data(), token.data() + kAtTag, tag.size()) != 0) {
      return denied("tag: does not fit the token");
    }
    return capability;
  }

  Result<Capability> verify(std::string_view token, uint64_t wall_ms) const override {
    auto capability = authenticate(token);
    if (!capability.ok()) return capability;
    if (Status status = check_expiry(*capability, wall_ms); !status.ok()) return status;
    return capability;
  }

 private:
  const Key* find(uint16_t id) const {
    for (size_t i = 0; i < std::min(keys_.size(), kKeysThatVerify); ++i) {
      if (keys_[i].id == id) return &keys_[i];
    }
    return nullptr;
  }

  std::vector<Key> keys_;  // newest first; constant until destruction
};

}  // namespace

Result<std::shared_ptr<const Keyring>> Keyring::create(std::vector<Key> keys) {
  if (keys.empty()) return invalid("has no key");
  for (size_t i = 0; i < keys.size(); ++i) {
    if (keys[i].secret.size() != kKeySize) {
      return invalid("key " + std::to_string(keys[i].id) + " must have 32 bytes");
    }
    for (size_t j = 0; j < i; ++j) {
      if (keys[i].id == keys[j].id) {
        return invalid("key id " + std::to_string(keys[i].id) + " occurs twice");
      }
    }
  }
  return std::shared_ptr<const Keyring>(std::make_shared<HmacKeyring>(std::move(keys)));
}

Result<std::shared_ptr<const Keyring>> Keyring::parse(std::string_view serialized) {
  if (serialized.size() % kSerializedKeySize != 0) {
    return invalid("length: is " + std::to_string(serialized.size()) + ", not entries of 34 bytes");
  }
  std::vector<Key> keys;
  for (; !serialized.empty(); serialized.remove_prefix(kSerializedKeySize)) {
    Key key;
    get(serialized, 0, &key.id);
    key.secret = std::string(serialized.substr(2, kKeySize));
    keys.push_back(std::move(key));
  }
  return create(std::move(keys));
}

// The tokens accepted last, in a table indexed by bits of their tags: tags are evenly spread, and a
// newcomer simply replaces whoever had its place.
struct Verifier::Impl {
  struct Accepted {
    std::array<char, kCapabilitySize> token{};
    Capability capability;
    bool used = false;
  };
  static constexpr size_t kAcceptedMax = 256;

  std::shared_ptr<const Keyring> keyring;
  std::string cluster_id;
  std::vector<Accepted> accepted = std::vector<Accepted>(kAcceptedMax);

  Result<Capability> authenticate(std::string_view token);
};

Result<Capability> Verifier::Impl::authenticate(std::string_view token) {
  if (token.size() != kCapabilitySize) return keyring->authenticate(token);
  Accepted& place = accepted[static_cast<uint8_t>(token[kAtTag])];
  if (place.used && CRYPTO_memcmp(place.token.data(), token.data(), token.size()) == 0) {
    return place.capability;
  }
  auto capability = keyring->authenticate(token);
  if (capability.ok()) {
    std::memcpy(place.token.data(), token.data(), token.size());
    place.capability = *capability;
    place.used = true;
  }
  return capability;
}

Verifier::Verifier(std::shared_ptr<const Keyring> keyring, std::string cluster_id)
    : impl_(std::make_unique<Impl>()) {
  FS3_CHECK(keyring != nullptr && cluster_id.size() == 16);
  impl_->keyring = std::move(keyring);
  impl_->cluster_id = std::move(cluster_id);
}

Verifier::~Verifier() = default;

Status Verifier::check(std::string_view token, uint8_t rights, uint64_t inode,
                       std::string_view client, uint64_t wall_ms) {
  auto authenticated = impl_->authenticate(token);
  if (!authenticated.ok()) return authenticated.status();
  const Capability& capability = *authenticated;
  if (std::memcmp(capability.cluster.data(), impl_->cluster_id.data(), 4) != 0) {
    return denied("cluster: the token belongs to another cluster");
  }
  if (Status status = check_expiry(capability, wall_ms); !status.ok()) return status;
  if (client.size() != capability.client.size() ||
      std::memcmp(capability.client.data(), client.data(), client.size()) != 0) {
    return denied("client: the token belongs to another client");
  }
  bool server = (capability.rights & kServer) != 0;
  if (!server && (capability.rights & rights) != rights) {
    return denied("rights: the token has " + std::to_string(capability.rights) + ", needed are " +
                  std::to_string(rights));
  }
  if (capability.inode != inode && !(server && capability.inode == 0)) {
    return denied("inode: the token covers " + std::to_string(capability.inode) + ", not " +
                  std::to_string(inode));
  }
  return Status();
}

}  // namespace fs3::auth
