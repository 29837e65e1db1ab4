// libFuzzer's entry: one process, millions of inputs.
#include <google/protobuf/stubs/logging.h>

#include "fuzz.h"

// protobuf prints a line for every string that is not UTF-8.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)fs3::fuzz::accepts({reinterpret_cast<const char*>(data), size});
  return 0;
}
