// Ids as Python values: a chunk id is (inode, index), an identity (client id of 16 bytes, channel,
// sequence).
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>

#include "base/ids.h"

namespace nanobind::detail {

template <>
struct type_caster<fs3::ChunkId> {
  NB_TYPE_CASTER(fs3::ChunkId, const_name("tuple[int, int]"))
  bool from_python(handle src, uint8_t, cleanup_list*) noexcept {
    if (!PyTuple_Check(src.ptr()) || PyTuple_GET_SIZE(src.ptr()) != 2) return false;
    value.inode = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(src.ptr(), 0));
    value.index = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(src.ptr(), 1));
    if (!PyErr_Occurred()) return true;
    PyErr_Clear();
    return false;
  }
  static handle from_cpp(const fs3::ChunkId& id, rv_policy, cleanup_list*) noexcept {
    return Py_BuildValue("(KK)", static_cast<unsigned long long>(id.inode),
                         static_cast<unsigned long long>(id.index));
  }
};

template <>
struct type_caster<fs3::UpdateIdentity> {
  NB_TYPE_CASTER(fs3::UpdateIdentity, const_name("tuple[bytes, int, int]"))
  bool from_python(handle src, uint8_t, cleanup_list*) noexcept {
    if (!PyTuple_Check(src.ptr()) || PyTuple_GET_SIZE(src.ptr()) != 3) return false;
    PyObject* client = PyTuple_GET_ITEM(src.ptr(), 0);
    if (!PyBytes_Check(client) || PyBytes_GET_SIZE(client) != 16) return false;
    std::memcpy(value.client_id.data(), PyBytes_AS_STRING(client), 16);
    value.channel = static_cast<uint32_t>(PyLong_AsUnsignedLong(PyTuple_GET_ITEM(src.ptr(), 1)));
    value.sequence = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(src.ptr(), 2));
    if (!PyErr_Occurred()) return true;
    PyErr_Clear();
    return false;
  }
  static handle from_cpp(const fs3::UpdateIdentity& id, rv_policy, cleanup_list*) noexcept {
    PyObject* client =
        PyBytes_FromStringAndSize(reinterpret_cast<const char*>(id.client_id.data()), 16);
    return Py_BuildValue("(NIK)", client, id.channel, static_cast<unsigned long long>(id.sequence));
  }
};

}  // namespace nanobind::detail
