// A failed Status as the exception that fs3/errors.py names for it. Needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>

#include "base/status.h"

namespace fs3::python {

namespace nb = nanobind;

// REQUIRES: !status.ok(); the GIL is held.
[[noreturn]] inline void raise(const Status& status) {
  nb::object error =
      nb::module_::import_("fs3.errors")
          .attr("error_for")(status.code(), nb::str(status.where().data(), status.where().size()),
                             nb::str(status.detail().data(), status.detail().size()));
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw nb::python_error();
}

inline void check(const Status& status) {
  if (!status.ok()) raise(status);
}

template <typename T>
T take(Result<T> result) {
  check(result.status());
  return std::move(result).value();
}

}  // namespace fs3::python
