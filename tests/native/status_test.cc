#include "base/status.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "common.pb.h"

namespace fs3 {
namespace {

TEST(Status, OkIsEmpty) {
  Status status;
  EXPECT_TRUE(status.ok());
  EXPECT_EQ(status.code(), kOk);
  EXPECT_EQ(status.where(), "");
  EXPECT_EQ(status.detail(), "");
  EXPECT_EQ(status.to_errno(), 0);
  EXPECT_EQ(status.to_string(), "OK");
}

TEST(Status, SaysWhereAndWhy) {
  Status status(kChainVersionMismatch, "storage-2/write",
                "chain 3 is at version 7, request says 6");
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.to_string(),
            "storage-2/write: CHAIN_VERSION_MISMATCH: chain 3 is at version 7, request says 6");
  EXPECT_EQ(Status(ENOENT, "", "").to_string(), "ENOENT");
}

TEST(Status, CopiesShareTheError) {
  Status status(kBusy, "here", "full");
  Status copy = status;
  status = Status();
  EXPECT_EQ(copy.detail(), "full");
}

TEST(Status, ErrnoOfEveryKind) {
  EXPECT_EQ(Status(ENOENT, "", "").to_errno(), ENOENT);
  EXPECT_EQ(Status(kTimedOut, "", "").to_errno(), ETIMEDOUT);
  EXPECT_EQ(Status(kCapabilityDenied, "", "").to_errno(), EACCES);
  EXPECT_EQ(Status(kBadRequest, "", "").to_errno(), EINVAL);
  EXPECT_EQ(Status(kChecksumMismatch, "", "").to_errno(), EIO);
}

TEST(Status, NamesEqualTheProtocol) {
  int compared = 0;
  for (uint32_t code = 0; code < 8192; ++code) {
    if (!proto::StatusCode_IsValid(static_cast<int>(code))) continue;
    ++compared;
    EXPECT_EQ(code_name(code), proto::StatusCode_Name(static_cast<proto::StatusCode>(code)));
  }
  EXPECT_EQ(compared, 19);
  EXPECT_EQ(code_name(4711), "status 4711");
  EXPECT_EQ(code_name(4000), "status 4000");
  EXPECT_EQ(code_name(ENOENT), "ENOENT");
}

TEST(Result, HoldsOneOfBoth) {
  Result<std::string> good(std::string("x"));
  EXPECT_TRUE(good.ok());
  EXPECT_TRUE(good.status().ok());
  EXPECT_EQ(good.value(), "x");
  EXPECT_EQ(good->size(), 1u);
  Result<std::string> bad(Status(kBusy, "a", "b"));
  EXPECT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().code(), kBusy);
}

}  // namespace
}  // namespace fs3
