// Status: the result of something that can fail. Ok costs nothing; an error has a code
// (fs3.StatusCode of proto/common.proto: errno values below 4096, protocol conditions from 4096),
// where it happened, and a detail for people. Result<T> is a value or a Status. Neither is ever
// thrown.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace fs3 {

// Mirror of fs3.StatusCode; tests/native compare them. errno values are used directly.
enum Code : uint32_t {
  kOk = 0,
  kChainVersionMismatch = 4096,
  kNotServing = 4097,
  kNotHead = 4098,
  kLeaseExpired = 4099,
  kUnknownTarget = 4100,
  kBusy = 4112,
  kTimedOut = 4113,
  kConnectionLost = 4114,
  kShuttingDown = 4115,
  kMissingBase = 4128,
  kStaleUpdate = 4129,
  kBadRequest = 4144,
  kUnknownMethod = 4145,
  kCapabilityDenied = 4146,
  kDuplicateOld = 4147,
  kChecksumMismatch = 4148,
  kWrongCluster = 4149,
  kDamaged = 4150,
};

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(uint32_t code, std::string_view where, std::string_view detail);

  bool ok() const { return error_ == nullptr; }
  uint32_t code() const { return error_ ? error_->code : kOk; }
  // Empty when ok.
  std::string_view where() const {
    return error_ ? std::string_view(error_->where) : std::string_view();
  }
  std::string_view detail() const {
    return error_ ? std::string_view(error_->detail) : std::string_view();
  }
  // "storage-2/write: CHAIN_VERSION_MISMATCH: chain 3 is at version 7, request says 6"
  std::string to_string() const;
  // The errno an application sees: codes below 4096 are errno; protocol conditions map to EIO,
  // ETIMEDOUT, EACCES, EINVAL.
  int to_errno() const;

 private:
  struct Error {
    uint32_t code;
    std::string where;
    std::string detail;
  };
  std::shared_ptr<const Error> error_;
};

// "CHAIN_VERSION_MISMATCH", "ENOENT", "status 4711".
std::string code_name(uint32_t code);

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}         // NOLINT: implicit on purpose
  Result(Status status) : state_(std::move(status)) {}  // NOLINT; REQUIRES: !status.ok()

  bool ok() const { return std::holds_alternative<T>(state_); }
  // Ok() when a value is held.
  Status status() const { return ok() ? Status() : std::get<Status>(state_); }
  // REQUIRES: ok()
  T& value() & { return std::get<T>(state_); }
  const T& value() const& { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }
  T* operator->() { return &std::get<T>(state_); }
  T& operator*() { return std::get<T>(state_); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace fs3
