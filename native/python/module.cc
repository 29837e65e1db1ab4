// The module fs3._native: one bind_*.cc per part, no logic.
#include "python/module.h"

NB_MODULE(_native, m) {
  m.doc() = "Native core of fs3: everything that moves bytes.";
  for (auto bind : fs3::python::binders()) bind(m);
}
