#include "auth/capability.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "vectors.h"

namespace fs3::auth {
namespace {

class Tokens : public testing::Test {
 protected:
  std::shared_ptr<const Keyring> keyring() const {
    return std::move(Keyring::parse(vectors_["keyring"].bytes())).value();
  }
  static Capability capability_of(const Json& row) {
    Capability c;
    c.rights = static_cast<uint8_t>(row["rights"].number);
    c.key_id = static_cast<uint16_t>(row["key_id"].number);
    c.cluster = row["cluster"].array<4>();
    c.inode = row["inode"].number;
    c.client = row["client"].array<16>();
    c.issued_ms = row["issued_ms"].number;
    c.expiry_ms = row["expiry_ms"].number;
    c.session = row["session"].array<16>();
    return c;
  }
  static std::string first_word(const Status& status) {
    std::string detail(status.detail());
    return detail.substr(0, detail.find(':'));
  }

  const Json vectors_ = read_vectors("capability");
  static constexpr uint64_t kNow = 1'750'000'000'000;
};

TEST_F(Tokens, GoldenTokensMintAndVerify) {
  ASSERT_GE(vectors_["tokens"].items.size(), 4u);
  for (const Json& row : vectors_["tokens"].items) {
    std::string token = row["token"].bytes();
    EXPECT_EQ(keyring()->mint(capability_of(row)), token);
    auto capability = keyring()->verify(token, kNow);
    ASSERT_TRUE(capability.ok()) << capability.status().to_string();
    EXPECT_EQ(keyring()->mint(*capability), token);
    EXPECT_EQ(capability->key_id, row["key_id"].number);
  }
}

TEST_F(Tokens, RefusalsNameTheField) {
  ASSERT_GE(vectors_["denied"].items.size(), 8u);
  for (const Json& row : vectors_["denied"].items) {
    auto result = keyring()->verify(row["token"].bytes(), row["wall_ms"].number);
    ASSERT_FALSE(result.ok()) << row["field"].text;
    EXPECT_EQ(result.status().code(), kCapabilityDenied);
    EXPECT_EQ(first_word(result.status()), row["field"].text);
  }
}

TEST_F(Tokens, SlackAndThePreviousKeyAreAccepted) {
  ASSERT_GE(vectors_["accepted"].items.size(), 3u);
  for (const Json& row : vectors_["accepted"].items) {
    EXPECT_TRUE(keyring()->verify(row["token"].bytes(), row["wall_ms"].number).ok());
  }
}

TEST_F(Tokens, EveryBitCounts) {
  std::string good = vectors_["tokens"].items[1]["token"].bytes();
  auto ring = keyring();
  for (size_t bit = 0; bit < 640; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    ASSERT_FALSE(ring->verify(bad, kNow).ok()) << bit;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    ASSERT_FALSE(ring->verify(good.substr(0, size), kNow).ok());
  }
}

TEST_F(Tokens, ExpiryDoesNotWrapAround) {
  Capability c = capability_of(vectors_["tokens"].items[1]);
  c.expiry_ms = UINT64_MAX;
  EXPECT_TRUE(keyring()->verify(keyring()->mint(c), UINT64_MAX).ok());
  c.expiry_ms = 0;
  EXPECT_FALSE(keyring()->verify(keyring()->mint(c), kNow).ok());
}

class Checks : public Tokens {
 protected:
  Checks() {
    const Json& row = vectors_["tokens"].items[1];  // read and write, inode 42
    token_ = row["token"].bytes();
    client_ = row["client"].bytes();
    cluster_ = row["cluster"].bytes() + std::string(12, 'x');
    verifier_ = std::make_unique<Verifier>(keyring(), cluster_);
  }
  std::string refused(std::string_view token, uint8_t rights, uint64_t inode,
                      std::string_view client, uint64_t wall_ms = kNow) {
    Status status = verifier_->check(token, rights, inode, client, wall_ms);
    return status.ok() ? "" : first_word(status);
  }
  std::string server_token(uint64_t inode) {
    Capability c = capability_of(vectors_["tokens"].items[1]);
    c.rights = kServer;
    c.inode = inode;
    return keyring()->mint(c);
  }

  std::string token_, client_, cluster_;
  std::unique_ptr<Verifier> verifier_;
};

TEST_F(Checks, TheTokenCoversItsInodeRightsAndClient) {
  for (int round = 0; round < 3; ++round) {  // the second one meets the remembered token
    EXPECT_EQ(refused(token_, kRead, 42, client_), "");
    EXPECT_EQ(refused(token_, kWrite, 42, client_), "");
    EXPECT_EQ(refused(token_, kRead | kWrite, 42, client_), "");
    EXPECT_EQ(refused(token_, kTruncate, 42, client_), "rights");
    EXPECT_EQ(refused(token_, kRead | kTruncate, 42, client_), "rights");
    EXPECT_EQ(refused(token_, kServer, 42, client_), "rights");
    EXPECT_EQ(refused(token_, kRead, 43, client_), "inode");
    EXPECT_EQ(refused(token_, kRead, 0, client_), "inode");
    EXPECT_EQ(refused(token_, kRead, 42, std::string(16, 'z')), "client");
    EXPECT_EQ(refused(token_, kRead, 42, ""), "client");
    EXPECT_EQ(refused("", kRead, 42, client_), "length");
  }
}

TEST_F(Checks, ARememberedTokenStillExpires) {
  uint64_t expiry = vectors_["tokens"].items[1]["expiry_ms"].number;
  EXPECT_EQ(refused(token_, kRead, 42, client_, expiry), "");
  EXPECT_EQ(refused(token_, kRead, 42, client_, expiry + 30'000), "");
  EXPECT_EQ(refused(token_, kRead, 42, client_, expiry + 30'001), "expiry");
  EXPECT_EQ(refused(token_, kRead, 42, client_, expiry), "");
}

TEST_F(Checks, ARememberedTokenDoesNotVouchForOthers) {
  EXPECT_EQ(refused(token_, kRead, 42, client_), "");
  for (size_t bit = 0; bit < 640; ++bit) {
    std::string bad = token_;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    ASSERT_NE(refused(bad, kRead, 42, client_), "") << bit;
  }
  EXPECT_EQ(refused(token_, kRead, 42, client_), "");
}

TEST_F(Checks, AServerTokenStandsForEveryRightAndWithInodeZeroForEveryInode) {
  std::string any = server_token(0);
  EXPECT_EQ(refused(any, kRead | kWrite | kTruncate | kServer, 4711, client_), "");
  EXPECT_EQ(refused(any, kServer, 0, client_), "");
  std::string one = server_token(7);
  EXPECT_EQ(refused(one, kWrite, 7, client_), "");
  EXPECT_EQ(refused(one, kWrite, 8, client_), "inode");
}

TEST_F(Checks, AnotherClusterIsRefused) {
  Verifier other(keyring(), std::string(16, 'q'));
  Status status = other.check(token_, kRead, 42, client_, kNow);
  EXPECT_EQ(first_word(status), "cluster");
}

TEST_F(Checks, ManyTokensShareTheTable) {
  for (int round = 0; round < 2; ++round) {
    for (uint64_t inode = 1; inode <= 2000; ++inode) {
      Capability c = capability_of(vectors_["tokens"].items[1]);
      c.inode = inode;
      ASSERT_EQ(refused(keyring()->mint(c), kRead, inode, client_), "");
      ASSERT_EQ(refused(keyring()->mint(c), kRead, inode + 1, client_), "inode");
    }
  }
}

TEST(KeyringCreation, RefusesWhatIsNoKeyring) {
  auto code = [](std::vector<Key> keys) {
    return Keyring::create(std::move(keys)).status().code();
  };
  std::string secret(32, 's');
  EXPECT_EQ(code({}), static_cast<uint32_t>(EINVAL));
  EXPECT_EQ(code({{1, "short"}}), static_cast<uint32_t>(EINVAL));
  EXPECT_EQ(code({{1, secret}, {1, secret}}), static_cast<uint32_t>(EINVAL));
  EXPECT_EQ(code({{1, secret}, {2, secret}}), static_cast<uint32_t>(kOk));
  EXPECT_FALSE(Keyring::parse("").ok());
  EXPECT_FALSE(Keyring::parse(std::string(33, 'x')).ok());
  EXPECT_FALSE(Keyring::parse(std::string(68, 'x')).ok());  // one id twice
  EXPECT_TRUE(Keyring::parse(std::string(34, 'x')).ok());
}

}  // namespace
}  // namespace fs3::auth
