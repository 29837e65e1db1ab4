#include "base/status.h"

#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace fs3 {
namespace {

constexpr uint32_t kFirstProtocolCode = 4096;

const char* protocol_name(uint32_t code) {
  switch (code) {
    case kOk:
      return "OK";
    case kChainVersionMismatch:
      return "CHAIN_VERSION_MISMATCH";
    case kNotServing:
      return "NOT_SERVING";
    case kNotHead:
      return "NOT_HEAD";
    case kLeaseExpired:
      return "LEASE_EXPIRED";
    case kUnknownTarget:
      return "UNKNOWN_TARGET";
    case kBusy:
      return "BUSY";
    case kTimedOut:
      return "TIMED_OUT";
    case kConnectionLost:
      return "CONNECTION_LOST";
    case kShuttingDown:
      return "SHUTTING_DOWN";
    case kMissingBase:
      return "MISSING_BASE";
    case kStaleUpdate:
      return "STALE_UPDATE";
    case kBadRequest:
      return "BAD_REQUEST";
    case kUnknownMethod:
      return "UNKNOWN_METHOD";
    case kCapabilityDenied:
      return "CAPABILITY_DENIED";
    case kDuplicateOld:
      return "DUPLICATE_OLD";
    case kChecksumMismatch:
      return "CHECKSUM_MISMATCH";
    case kWrongCluster:
      return "WRONG_CLUSTER";
    case kDamaged:
      return "DAMAGED";
    default:
      return nullptr;
  }
}

}  // namespace

std::string code_name(uint32_t code) {
  if (const char* name = protocol_name(code)) return name;
  if (code < kFirstProtocolCode) {
    if (const char* name = strerrorname_np(static_cast<int>(code))) return name;
  }
  return "status " + std::to_string(code);
}

Status::Status(uint32_t code, std::string_view where, std::string_view detail) {
  FS3_CHECK(code != kOk);
  error_ = std::make_shared<const Error>(Error{code, std::string(where), std::string(detail)});
}

std::string Status::to_string() const {
  if (ok()) return "OK";
  std::string text;
  if (!error_->where.empty()) text = error_->where + ": ";
  text += code_name(error_->code);
  if (!error_->detail.empty()) text += ": " + error_->detail;
  return text;
}

int Status::to_errno() const {
  uint32_t number = code();
  if (number < kFirstProtocolCode) return static_cast<int>(number);
  switch (number) {
    case kTimedOut:
      return ETIMEDOUT;
    case kCapabilityDenied:
    case kWrongCluster:
      return EACCES;
    case kBadRequest:
      return EINVAL;
    default:
      return EIO;
  }
}

}  // namespace fs3
