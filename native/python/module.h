// How a bind_*.cc adds itself to the module: a file-scope `static Register r(bind_x);`.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

namespace fs3::python {

namespace nb = nanobind;
using Binder = void (*)(nb::module_&);

inline std::vector<Binder>& binders() {
  static std::vector<Binder> list;
  return list;
}

struct Register {
  explicit Register(Binder binder) { binders().push_back(binder); }
};

}  // namespace fs3::python
