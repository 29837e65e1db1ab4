// fs3._usrbio: rings of shared memory for Python, over libhf3fs_api_shared.so. hf3fs_py_usrbio and
// fs3.Ring are made of it. No logic of I/O is here: buffers, references, the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "usrbio/hf3fs_usrbio.h"

namespace nb = nanobind;

namespace {

using nb::literals::operator""_a;

constexpr int64_t kNsPerSecond = 1'000'000'000;
// A waiting thread looks for signals (Ctrl-C) this often.
constexpr int64_t kSliceNs = kNsPerSecond / 5;

[[noreturn]] void raise_errno(int error, const char* what) {
  std::string text = std::string(what) + ": " + std::strerror(error);
  PyErr_SetObject(PyExc_OSError, nb::make_tuple(error, text).ptr());
  throw nb::python_error();
}

int64_t wall_ns() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

// Without end when negative.
int wait_without_gil(const hf3fs_ior& ior, hf3fs_cqe* cqes, int most, int least,
                     int64_t timeout_ns) {
  int64_t end = timeout_ns < 0 ? INT64_MAX : wall_ns() + timeout_ns;
  int got = 0;
  while (true) {
    int64_t until = std::min(end, wall_ns() + kSliceNs);
    timespec at{until / kNsPerSecond, until % kNsPerSecond};
    int more;
    {
      nb::gil_scoped_release release;
      more = hf3fs_wait_for_ios(&ior, cqes + got, most - got, least - got, &at);
    }
    if (more < 0) {
      if (got > 0) return got;
      raise_errno(-more, "waiting for I/Os");
    }
    got += more;
    if (got >= least || wall_ns() >= end) return got;
    // What has been taken would be lost with an exception; it is handed out first.
    if (got == 0 && PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

int64_t timeout_of(nb::handle timeout) {
  if (timeout.is_none()) return -1;
  double seconds = nb::hasattr(timeout, "total_seconds")
                       ? nb::cast<double>(timeout.attr("total_seconds")())
                       : nb::cast<double>(timeout);
  if (std::isnan(seconds)) throw nb::value_error("timeout is not a number");
  return static_cast<int64_t>(std::clamp(seconds, 0.0, 1e9) * 1e9);
}

// 16 bytes, a uuid.UUID, or its text.
void parse_id(nb::handle id, uint8_t out[16]) {
  nb::object bytes;
  if (nb::isinstance<nb::bytes>(id)) {
    bytes = nb::borrow(id);
  } else {
    nb::object uuid = nb::module_::import_("uuid").attr("UUID");
    bytes = (nb::isinstance<nb::str>(id) ? uuid(id) : nb::borrow(id)).attr("bytes");
  }
  auto raw = nb::cast<nb::bytes>(bytes);
  if (raw.size() != 16) throw nb::value_error("id: 16 bytes, a UUID or its text");
  std::memcpy(out, raw.c_str(), 16);
}

// ---- 3FS's classes

// Memory, all of it or a slice. A slice keeps what it was cut of.
struct Iovec {
  hf3fs_iov whole{};
  uint8_t* base = nullptr;
  size_t size = 0;
  nb::object parent;  // the slice's; none for the whole
  Py_buffer view{};   // the whole's
  bool viewed = false;
  int64_t result = 0;
  nb::object userdata = nb::none();

  Iovec() = default;
  Iovec(nb::handle buffer, nb::handle id, const std::string& mount_point, size_t block_size,
        int numa) {
    uint8_t bytes[16];
    parse_id(id, bytes);
    if (PyObject_GetBuffer(buffer.ptr(), &view, PyBUF_WRITABLE) != 0) throw nb::python_error();
    viewed = true;
    base = static_cast<uint8_t*>(view.buf);
    size = static_cast<size_t>(view.len);
    int error = hf3fs_iovwrap(&whole, base, bytes, mount_point.c_str(), size, block_size, numa);
    if (error == 0) return;
    release();
    raise_errno(-error, "hf3fs_iovwrap");
  }
  Iovec(const Iovec&) = delete;
  ~Iovec() { release(); }
  void release() {
    if (viewed) PyBuffer_Release(&view);
    viewed = false;
  }
  size_t base_off() const { return static_cast<size_t>(base - whole.base); }
};

nb::object sliced(nb::handle self, size_t offset, size_t size) {
  auto& own = nb::cast<Iovec&>(self);
  nb::object made = nb::type<Iovec>().is_valid() ? nb::inst_alloc(nb::type<Iovec>()) : nb::object();
  new (nb::inst_ptr<Iovec>(made)) Iovec();
  nb::inst_mark_ready(made);
  auto& part = nb::cast<Iovec&>(made);
  part.whole = own.whole;
  part.base = own.base + offset;
  part.size = size;
  part.parent = nb::borrow(self);
  return made;
}

nb::object slice_item(nb::handle self, nb::slice slice) {
  Py_ssize_t begin, end, step;
  if (PySlice_Unpack(slice.ptr(), &begin, &end, &step) < 0) throw nb::python_error();
  if (step != 1) throw nb::value_error("slices of an iovec have step 1");
  auto size = static_cast<Py_ssize_t>(nb::cast<Iovec&>(self).size);
  Py_ssize_t length = PySlice_AdjustIndices(size, &begin, &end, 1);
  return sliced(self, static_cast<size_t>(begin), static_cast<size_t>(length));
}

// The part that a buffer, which lies in it, covers.
nb::object slice_by(nb::handle self, nb::handle buffer) {
  Py_buffer part{};
  if (PyObject_GetBuffer(buffer.ptr(), &part, PyBUF_SIMPLE) != 0) throw nb::python_error();
  auto at = reinterpret_cast<uintptr_t>(part.buf);
  auto length = static_cast<size_t>(part.len);
  PyBuffer_Release(&part);
  auto& own = nb::cast<Iovec&>(self);
  auto base = reinterpret_cast<uintptr_t>(own.base);
  if (at < base || at - base > own.size || length > own.size - (at - base)) {
    throw nb::value_error("the buffer does not lie in this iovec");
  }
  return sliced(self, at - base, length);
}

int iovec_getbuffer(PyObject* self, Py_buffer* view, int flags) {
  auto* own = nb::inst_ptr<Iovec>(self);
  return PyBuffer_FillInfo(view, self, own->base, static_cast<Py_ssize_t>(own->size), 0, flags);
}

PyType_Slot iovec_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(iovec_getbuffer)},
                             {0, nullptr}};

// What was prepared is referenced until it has come back.
struct Ioring {
  hf3fs_ior ior{};
  int entries;
  std::unordered_set<PyObject*> under_way;  // guarded by the GIL

  Ioring(const std::string& mount_point, int entries, bool for_read, int io_depth,
         std::optional<int> priority, std::optional<int> timeout, int numa, uint64_t flags)
      : entries(entries) {
    int error = priority.value_or(0) != 0 && flags == 0
                    ? hf3fs_iorcreate3(&ior, mount_point.c_str(), entries, for_read, io_depth,
                                       *priority, timeout.value_or(0), numa)
                    : hf3fs_iorcreate4(&ior, mount_point.c_str(), entries, for_read, io_depth,
                                       timeout.value_or(0), numa, flags);
    if (error != 0) raise_errno(-error, "creating a ring");
  }
  Ioring(const Ioring&) = delete;
  ~Ioring() {
    {
      nb::gil_scoped_release release;  // it waits for what is under way
      hf3fs_iordestroy(&ior);
    }
    for (PyObject* each : under_way) Py_DECREF(each);
  }
};

void prepare(Ioring& ring, nb::object iov, bool read, int fd, size_t off, nb::object userdata) {
  auto& part = nb::cast<Iovec&>(iov);
  part.userdata = std::move(userdata);
  int slot = hf3fs_prep_io(&ring.ior, &part.whole, read, part.base, fd, off, part.size, iov.ptr());
  if (slot < 0) raise_errno(-slot, "hf3fs_prep_io");
  ring.under_way.insert(iov.release().ptr());
}

void submit(Ioring& ring) {
  int error = hf3fs_submit_ios(&ring.ior);
  if (error != 0) raise_errno(-error, "hf3fs_submit_ios");
}

nb::list wait(Ioring& ring, int max_results, int min_results, nb::handle timeout) {
  int most = max_results <= 0 ? ring.entries : std::min(max_results, ring.entries);
  std::vector<hf3fs_cqe> cqes(static_cast<size_t>(most));
  int got = wait_without_gil(ring.ior, cqes.data(), most, std::clamp(min_results, 0, most),
                             timeout_of(timeout));
  nb::list done;
  for (int i = 0; i < got; ++i) {
    auto* object = static_cast<PyObject*>(const_cast<void*>(cqes[static_cast<size_t>(i)].userdata));
    if (ring.under_way.erase(object) == 0) continue;  // prepared before a fork, by the parent
    nb::object iov = nb::steal(object);
    nb::cast<Iovec&>(iov).result = cqes[static_cast<size_t>(i)].result;
    done.append(std::move(iov));
  }
  return done;
}

// ---- ours: one buffer, many ranges

struct Ring {
  hf3fs_iov iov{};
  hf3fs_ior ior{};
  bool for_read;
  size_t under_way = 0;  // guarded by the GIL

  Ring(const std::string& mount_point, int entries, bool for_read, size_t buffer_bytes,
       int priority, int numa)
      : for_read(for_read) {
    int error = hf3fs_iovcreate(&iov, mount_point.c_str(), buffer_bytes, 0, numa);
    if (error != 0) raise_errno(-error, "memory of a ring");
    error = hf3fs_iorcreate3(&ior, mount_point.c_str(), entries, for_read, 0, priority, 0, numa);
    if (error == 0) return;
    hf3fs_iovdestroy(&iov);
    raise_errno(-error, "creating a ring");
  }
  Ring(const Ring&) = delete;
  ~Ring() { close(); }
  // The memory stays until the last buffer that was exported is released: it keeps this object.
  void close() {
    nb::gil_scoped_release release;
    hf3fs_iordestroy(&ior);
    hf3fs_iovdestroy(&iov);
  }
  void end() {
    nb::gil_scoped_release release;
    hf3fs_iordestroy(&ior);
  }
};

int ring_getbuffer(PyObject* self, Py_buffer* view, int flags) {
  auto* own = nb::inst_ptr<Ring>(self);
  return PyBuffer_FillInfo(view, self, own->iov.base, static_cast<Py_ssize_t>(own->iov.size), 0,
                           flags);
}

PyType_Slot ring_slots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(ring_getbuffer)},
                            {0, nullptr}};

// How many of the ranges found a slot.
size_t ring_submit(Ring& ring, nb::sequence ranges) {
  size_t taken = 0;
  for (nb::handle range : ranges) {
    auto parts = nb::cast<nb::tuple>(range);
    auto fd = nb::cast<int>(parts[0]);
    auto offset = nb::cast<uint64_t>(parts[1]);
    auto length = nb::cast<uint64_t>(parts[2]);
    auto at = nb::cast<uint64_t>(parts[3]);
    auto tag = nb::cast<uint64_t>(parts[4]);
    bool inside = at <= ring.iov.size && length <= ring.iov.size - at;
    int slot = !inside ? -EINVAL
                       : hf3fs_prep_io(&ring.ior, &ring.iov, ring.for_read, ring.iov.base + at, fd,
                                       offset, length, reinterpret_cast<const void*>(tag));
    if (slot == -EAGAIN) break;
    if (slot < 0 && taken > 0) break;  // told by the next call, which begins with it
    if (slot < 0) raise_errno(-slot, "a range");
    ++taken;
  }
  ring.under_way += taken;
  int error = hf3fs_submit_ios(&ring.ior);
  if (error != 0) raise_errno(-error, "submitting");
  return taken;
}

nb::list ring_wait(Ring& ring, int least, int most, nb::handle timeout) {
  most = std::min(most, hf3fs_io_entries(&ring.ior));
  std::vector<hf3fs_cqe> cqes(static_cast<size_t>(std::max(most, 0)));
  int got = wait_without_gil(ring.ior, cqes.data(), most, std::clamp(least, 0, most),
                             timeout_of(timeout));
  ring.under_way -= std::min(ring.under_way, static_cast<size_t>(got));
  nb::list done;
  for (int i = 0; i < got; ++i) {
    const hf3fs_cqe& cqe = cqes[static_cast<size_t>(i)];
    done.append(nb::make_tuple(reinterpret_cast<uint64_t>(cqe.userdata), cqe.result));
  }
  return done;
}

}  // namespace

NB_MODULE(_usrbio, m) {
  nb::set_leak_warnings(false);  // rings of programs that end without a word
  m.def(
      "extract_mount_point",
      [](const std::string& path) -> std::optional<std::string> {
        std::vector<char> buffer(4096);
        int length;
        {
          nb::gil_scoped_release release;
          length = hf3fs_extract_mount_point(buffer.data(), static_cast<int>(buffer.size()),
                                             path.c_str());
        }
        if (length <= 0 || length > static_cast<int>(buffer.size())) return std::nullopt;
        return std::string(buffer.data());
      },
      "path"_a, "The mount that a path lies in; None when it is in none.");
  m.def(
      "register_fd",
      [](int fd, uint64_t flags) {
        int handle;
        {
          nb::gil_scoped_release release;
          handle = hf3fs_reg_fd(fd, flags);
        }
        if (handle > 0) raise_errno(handle, "hf3fs_reg_fd");
        return handle;
      },
      "fd"_a, "flags"_a = 0, "Makes an open file known for I/O; its handle. OSError.");
  m.def("deregister_fd", &hf3fs_dereg_fd, "fd"_a);
  m.def(
      "hardlink",
      [](const std::string& target, const std::string& link_name) {
        int error;
        {
          nb::gil_scoped_release release;
          error = hf3fs_hardlink(target.c_str(), link_name.c_str());
        }
        if (error != 0) raise_errno(error, "hf3fs_hardlink");
      },
      "target"_a, "link_name"_a);
  m.def(
      "punch_hole",
      [](int fd, size_t start, size_t end, size_t flags) {
        int error;
        {
          nb::gil_scoped_release release;
          error = hf3fs_punchhole(fd, 1, &start, &end, flags);
        }
        if (error != 0) raise_errno(error, "hf3fs_punchhole");
      },
      "fd"_a, "start"_a, "end"_a, "flags"_a = 0);

  nb::class_<Iovec>(m, "iovec", nb::type_slots(iovec_slots),
                    "Registered memory, or a slice of it; a buffer. A slice keeps the whole.")
      .def(nb::init<nb::handle, nb::handle, const std::string&, size_t, int>(), "base"_a, "id"_a,
           "hf3fs_mount_point"_a, "block_size"_a = 0, "numa"_a = -1)
      .def("__len__", [](const Iovec& iov) { return iov.size; })
      .def("__getitem__", &slice_item)
      .def("slice_by", &slice_by, "buffer"_a)
      .def_ro("result", &Iovec::result, "Bytes, or a negative errno; of the last I/O.")
      .def_prop_ro("base_off", &Iovec::base_off)
      .def_prop_ro("userdata", [](const Iovec& iov) { return iov.userdata; });

  nb::class_<Ioring>(m, "ioring")
      .def(nb::init<const std::string&, int, bool, int, std::optional<int>, std::optional<int>, int,
                    uint64_t>(),
           "hf3fs_mount_point"_a, "entries"_a, "for_read"_a = true, "io_depth"_a = 0,
           "priority"_a = nb::none(), "timeout"_a = nb::none(), "numa"_a = -1, "flags"_a = 0)
      .def_static("size_for_entries", &hf3fs_ior_size, "entries"_a)
      .def_ro("entries", &Ioring::entries)
      .def(
          "prepare",
          [](nb::object self, nb::object iov, bool read, int fd, size_t off, nb::object userdata) {
            prepare(nb::cast<Ioring&>(self), std::move(iov), read, fd, off, std::move(userdata));
            return self;
          },
          "iov"_a, "read"_a, "fd"_a, "off"_a, "userdata"_a = nb::none(),
          "One I/O with all of `iov`, which is kept until wait() returns it. OSError.")
      .def("submit",
           [](nb::object self) {
             submit(nb::cast<Ioring&>(self));
             return self;
           })
      .def("wait", &wait, nb::kw_only(), "max_results"_a = 0, "min_results"_a = 0,
           "timeout"_a = nb::none(),
           "The iovecs whose I/O has ended, with .result. timeout: timedelta, seconds or None.");

  nb::class_<Ring>(m, "Ring", nb::type_slots(ring_slots),
                   "A ring and its memory, which is the buffer of this object.")
      .def(nb::init<const std::string&, int, bool, size_t, int, int>(), "mount_point"_a,
           "entries"_a, "for_read"_a, "buffer_bytes"_a, "priority"_a = 0, "numa"_a = -1)
      .def("submit", &ring_submit, "ranges"_a,
           "(descriptor, offset, length, place in the buffer, tag) each; how many found a slot.")
      .def("wait", &ring_wait, "least"_a, "most"_a, "timeout"_a.none(),
           "[(tag, bytes or negative errno)], in the order of submission as far as possible.")
      .def_ro("under_way", &Ring::under_way)
      .def("fileno", [](const Ring& ring) { return fs3_ior_event_fd(&ring.ior); })
      .def("end", &Ring::end, "Waits for what is under way; the buffer stays.");
}
