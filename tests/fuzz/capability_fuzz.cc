// Keyring and capability token. Input: 0, a keyring of three keys, a token to verify; or 1, the
// fields of a token to mint; or 2, a keyring to parse.
#include "auth/capability.h"
#include "fuzz.h"

namespace fs3::fuzz {
namespace {

using namespace auth;
constexpr size_t kKeyringSize = 3 * (2 + kKeySize);
constexpr uint64_t kNowMs = 1'750'000'000'000;

bool verify(std::string_view keyring_bytes, std::string_view token) {
  auto keyring = Keyring::parse(keyring_bytes);
  if (!keyring.ok()) return false;
  auto authentic = (*keyring)->authenticate(token);
  auto valid = (*keyring)->verify(token, kNowMs);
  if (valid.ok()) FS3_CHECK(authentic.ok());
  if (!authentic.ok()) {
    FS3_CHECK(authentic.status().code() == kCapabilityDenied);
    return false;
  }
  FS3_CHECK(token.size() == kCapabilitySize);
  return true;
}

Capability take_capability(Input& in) {
  Capability capability;
  capability.rights = in.byte();
  capability.key_id = 7;
  capability.cluster = in.take<std::array<uint8_t, 4>>();
  capability.inode = in.take<uint64_t>();
  capability.client = in.take<std::array<uint8_t, 16>>();
  capability.issued_ms = in.take<uint64_t>();
  capability.expiry_ms = in.take<uint64_t>();
  capability.session = in.take<std::array<uint8_t, 16>>();
  return capability;
}

// The verifier's memory of accepted tokens must never change an answer.
void check_verifier(const std::shared_ptr<const Keyring>& keyring, const std::string& token,
                    const Capability& capability, Input& in) {
  std::string cluster(16, '\0');
  std::copy(capability.cluster.begin(), capability.cluster.end(), cluster.begin());
  Verifier verifier(keyring, cluster);
  std::string client(capability.client.begin(), capability.client.end());
  uint8_t wanted = in.byte();
  uint64_t inode = in.byte() % 2 == 0 ? capability.inode : in.take<uint64_t>();
  uint64_t now_ms = in.byte() % 2 == 0 ? capability.expiry_ms : in.take<uint64_t>();
  Status first = verifier.check(token, wanted, inode, client, now_ms);
  Status second = verifier.check(token, wanted, inode, client, now_ms);
  FS3_CHECK(first.code() == second.code());
  bool server = (capability.rights & kServer) != 0;
  bool covers = capability.inode == inode || (server && capability.inode == 0);
  bool rights = server || (capability.rights & wanted) == wanted;
  if (!covers || !rights) FS3_CHECK(!first.ok());
  std::string stranger = client;
  stranger[0] ^= 1;
  FS3_CHECK(!verifier.check(token, wanted, inode, stranger, now_ms).ok());
  cluster[0] ^= 1;
  FS3_CHECK(!Verifier(keyring, cluster).check(token, wanted, inode, client, now_ms).ok());
  std::string other = token;
  other[in.byte() % token.size()] ^= static_cast<char>(in.byte() | 1);
  FS3_CHECK(!verifier.check(other, wanted, inode, client, now_ms).ok());
}

bool mint(Input in) {
  auto keyring =
      Keyring::create({{7, std::string(kKeySize, 'k')}, {6, std::string(kKeySize, 'j')}});
  FS3_CHECK(keyring.ok());
  Capability capability = take_capability(in);
  std::string token = (*keyring)->mint(capability);
  auto again = (*keyring)->authenticate(token);
  FS3_CHECK(again.ok() && again->inode == capability.inode && again->rights == capability.rights);
  FS3_CHECK(again->client == capability.client && again->session == capability.session);
  check_verifier(*keyring, token, capability, in);
  return true;
}

}  // namespace

const size_t kSealedFrom = 1 + kKeyringSize;

bool accepts(std::string_view input) {
  Input in(input);
  switch (in.byte()) {
    case 0: {
      std::string_view keyring = in.take_bytes(kKeyringSize);
      return verify(keyring, in.rest());
    }
    case 1:
      return mint(in);
    default:
      return Keyring::parse(in.rest()).ok();
  }
}

}  // namespace fs3::fuzz
