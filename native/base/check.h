// CHECK(condition) << nothing: stays on in production. A failed check prints file, line and
// condition, then aborts the process: continuing would put acknowledged bytes at risk.
#pragma once

namespace fs3 {
[[noreturn]] void check_failed(const char* file, int line, const char* condition);
}

#define FS3_CHECK(condition)                               \
  do {                                                     \
    if (!(condition)) [[unlikely]]                         \
      ::fs3::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)
