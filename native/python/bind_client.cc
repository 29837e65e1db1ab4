// NativeClient: the native client for Python. Blocking calls release the GIL while they wait;
// submit_* calls answer through a CompletionQueue, whose eventfd an event loop or a worker watches.
//
// Ownership of application memory: a buffer given to readinto or submit_read is exported (its owner
// cannot resize it) until the read has ended. Reads end on a thread that must not take the GIL, so
// a view whose caller went away (KeyboardInterrupt) is parked and released by the next call.
#include <nanobind/nanobind.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "client/client.h"
#include "python/errors.h"
#include "python/module.h"

namespace fs3::python {
namespace {

using client::Client;
using nb::literals::operator""_a;

// A write longer than this is copied and handed over in pieces, so it never needs twice its memory.
constexpr size_t kWritePieceBytes = 8u << 20;
// How often a blocked call looks for signals.
constexpr auto kSignalPeriod = std::chrono::milliseconds(100);

// ---- buffers ------------------------------------------------------------------------------------

// Views whose release has to wait for a thread with the GIL.
class Parked {
 public:
  void park(Py_buffer view) {
    std::lock_guard lock(mutex_);
    views_.push_back(view);
  }
  // Needs the GIL.
  void release() {
    std::vector<Py_buffer> views;
    {
      std::lock_guard lock(mutex_);
      views.swap(views_);
    }
    for (Py_buffer& view : views) PyBuffer_Release(&view);
  }

 private:
  std::mutex mutex_;
  std::vector<Py_buffer> views_;
};

Parked& parked() {
  static auto* parked = new Parked;  // outlives every thread
  return *parked;
}

// An exported buffer. Destroyed on any thread: without release() the view is parked.
class View {
 public:
  // Needs the GIL. Raises BufferError, TypeError.
  View(nb::handle object, bool writable) {
    int flags = writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO;
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nb::python_error();
    held_ = true;
  }
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  ~View() {
    if (held_) parked().park(view_);
  }
  // Needs the GIL.
  void release() {
    if (std::exchange(held_, false)) PyBuffer_Release(&view_);
  }
  std::byte* data() const { return static_cast<std::byte*>(view_.buf); }
  size_t size() const { return static_cast<size_t>(view_.len); }

 private:
  Py_buffer view_{};
  bool held_ = false;
};

nb::bytes as_bytes(const std::string& text) { return nb::bytes(text.data(), text.size()); }

std::string as_string(const nb::bytes& bytes) { return {bytes.c_str(), bytes.size()}; }

// ---- blocking calls -----------------------------------------------------------------------------

template <typename T>
struct Pending {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<T> value;
};

// Starts the call and waits for its callback, without the GIL. Raises KeyboardInterrupt and
// whatever else a signal handler raises; the call then goes on by itself.
template <typename T, typename Start>
T wait_for(Start start) {
  auto pending = std::make_shared<Pending<T>>();
  bool started = false;
  while (true) {
    {
      nb::gil_scoped_release release;
      if (!std::exchange(started, true)) {
        start([pending](T value) {
          std::lock_guard lock(pending->mutex);
          pending->value.emplace(std::move(value));
          pending->changed.notify_all();
        });
      }
      std::unique_lock lock(pending->mutex);
      auto there = [&] { return pending->value.has_value(); };
      if (pending->changed.wait_for(lock, kSignalPeriod, there)) return std::move(*pending->value);
    }
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

// ---- completions --------------------------------------------------------------------------------

struct Completion {
  uint64_t token = 0;
  Status status;
  enum class Kind : uint8_t { kNone, kBytes, kNumber } kind = Kind::kNone;
  std::string bytes;
  uint64_t number = 0;
  std::shared_ptr<View> view;
};

class CompletionQueue {
 public:
  CompletionQueue() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) raise(Status(static_cast<uint32_t>(errno), "client/queue", "eventfd"));
  }
  ~CompletionQueue() { ::close(fd_); }
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  int fd() const { return fd_; }

  // Any thread; takes no GIL.
  void push(Completion completion) {
    std::lock_guard lock(mutex_);
    bool first = done_.empty();
    done_.push_back(std::move(completion));
    uint64_t one = 1;
    if (first) (void)!::write(fd_, &one, sizeof one);
  }

  nb::list drain() {
    std::vector<Completion> done;
    {
      std::lock_guard lock(mutex_);
      uint64_t count;
      (void)!::read(fd_, &count, sizeof count);
      done.swap(done_);
    }
    parked().release();
    nb::list list;
    for (Completion& completion : done) {
      if (completion.view) completion.view->release();
      list.append(
          nb::make_tuple(completion.token, value_of(completion), error_of(completion.status)));
    }
    return list;
  }

  // True when something is there before the time is over.
  bool wait(double timeout_s) const {
    nb::gil_scoped_release release;
    pollfd poll{fd_, POLLIN, 0};
    return ::poll(&poll, 1, timeout_s < 0 ? -1 : static_cast<int>(timeout_s * 1000)) > 0;
  }

 private:
  static nb::object value_of(const Completion& completion) {
    if (!completion.status.ok()) return nb::none();
    switch (completion.kind) {
      case Completion::Kind::kBytes:
        return as_bytes(completion.bytes);
      case Completion::Kind::kNumber:
        return nb::int_(completion.number);
      default:
        return nb::none();
    }
  }
  static nb::object error_of(const Status& status) {
    if (status.ok()) return nb::none();
    return nb::make_tuple(status.code(), nb::str(status.where().data(), status.where().size()),
                          nb::str(status.detail().data(), status.detail().size()));
  }

  const int fd_;
  std::mutex mutex_;
  std::vector<Completion> done_;
};

using Queue = std::shared_ptr<CompletionQueue>;

Function<void(Status)> complete_status(Queue queue, uint64_t token) {
  return [queue = std::move(queue), token](Status status) {
    queue->push({.token = token, .status = std::move(status)});
  };
}

template <typename N>
Function<void(Result<N>)> complete_number(Queue queue, uint64_t token,
                                          std::shared_ptr<View> view = nullptr) {
  return [queue = std::move(queue), token, view = std::move(view)](Result<N> result) mutable {
    Completion completion{.token = token, .status = result.status()};
    completion.kind = Completion::Kind::kNumber;
    if (result.ok()) completion.number = *result;
    completion.view = std::move(view);
    queue->push(std::move(completion));
  };
}

// ---- the client ---------------------------------------------------------------------------------

// One open file. A handle that Python forgets to close is closed in the background.
struct PyHandle {
  std::shared_ptr<Client> client;
  client::FileHandle handle;
  bool closed = false;

  ~PyHandle() {
    if (!closed && handle) client->close(std::move(handle), [](Status) {});
  }
};

struct NativeClient {
  std::shared_ptr<Client> client;
};

NativeClient make_client(std::vector<std::string> meta_addresses, nb::bytes client_id,
                         nb::bytes cluster_id, nb::bytes capability_key, double meta_deadline_s,
                         double data_deadline_s, size_t write_back_bytes,
                         size_t max_inflight_bytes) {
  client::Options options;
  options.meta_addresses = std::move(meta_addresses);
  options.client_id = as_string(client_id);
  options.cluster_id = as_string(cluster_id);
  options.capability_key = as_string(capability_key);
  options.meta_deadline_ns = static_cast<int64_t>(meta_deadline_s * 1e9);
  options.data_deadline_ns = static_cast<int64_t>(data_deadline_s * 1e9);
  options.write_back_bytes = write_back_bytes;
  options.max_inflight_bytes = max_inflight_bytes;
  return {take(Client::create(std::move(options)))};
}

nb::bytes meta_call(NativeClient& self, uint16_t method, nb::bytes caller, uint32_t umask,
                    nb::bytes body) {
  auto reply = wait_for<Result<std::string>>(
      [&, caller = as_string(caller), body = as_string(body)](auto done) mutable {
        self.client->meta_call(method, std::move(caller), umask, std::move(body), std::move(done));
      });
  return as_bytes(take(std::move(reply)));
}

PyHandle* open_handle(NativeClient& self, nb::bytes reply, uint32_t flags) {
  auto handle = self.client->open_handle(as_string(reply), flags);
  if (!handle) raise(Status(EINVAL, "client/open", "not an fs3.meta.OpenReply with a layout"));
  return new PyHandle{self.client, std::move(handle)};
}

size_t readinto(NativeClient& self, PyHandle& file, uint64_t offset, nb::handle buffer) {
  parked().release();
  auto view = std::make_shared<View>(buffer, true);
  auto result = wait_for<Result<size_t>>([&](auto done) {
    self.client->read(
        file.handle, offset, view->data(), view->size(),
        [view, done = std::move(done)](Result<size_t> got) mutable { done(std::move(got)); });
  });
  view->release();
  return take(std::move(result));
}

// Straight into the memory of a new bytes object, cut to what came.
nb::bytes read(NativeClient& self, PyHandle& file, uint64_t offset, size_t length) {
  parked().release();
  PyObject* bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(length));
  if (bytes == nullptr) throw nb::python_error();
  auto owned = nb::steal<nb::bytes>(bytes);
  auto view = std::make_shared<View>(owned, false);
  auto result = wait_for<Result<size_t>>([&](auto done) {
    self.client->read(
        file.handle, offset, view->data(), length,
        [view, done = std::move(done)](Result<size_t> got) mutable { done(std::move(got)); });
  });
  view->release();
  size_t got = take(std::move(result));
  if (got == length) return owned;
  bytes = owned.release().ptr();
  if (_PyBytes_Resize(&bytes, static_cast<Py_ssize_t>(got)) != 0) throw nb::python_error();
  return nb::steal<nb::bytes>(bytes);
}

struct ManyReads {
  std::vector<std::shared_ptr<View>> views;
  std::vector<size_t> lengths;
  std::atomic<size_t> open;
  std::mutex mutex;
  Status error;
};

// All reads at once, one wait for all.
std::vector<size_t> readinto_many(NativeClient& self, nb::list reads) {
  parked().release();
  auto many = std::make_shared<ManyReads>();
  std::vector<std::pair<client::FileHandle, uint64_t>> where;
  for (nb::handle item : reads) {
    auto [file, offset, buffer] = nb::cast<std::tuple<PyHandle*, uint64_t, nb::object>>(item);
    where.emplace_back(file->handle, offset);
    many->views.push_back(std::make_shared<View>(buffer, true));
  }
  many->lengths.resize(where.size());
  many->open = where.size();
  if (where.empty()) return {};
  check(wait_for<Status>([&](auto done) {
    auto shared = std::make_shared<decltype(done)>(std::move(done));
    for (size_t i = 0; i < where.size(); ++i) {
      auto ended = [many, i, shared](Result<size_t> got) {
        {
          std::lock_guard lock(many->mutex);
          if (got.ok()) many->lengths[i] = *got;
          if (!got.ok() && many->error.ok()) many->error = got.status();
        }
        if (many->open.fetch_sub(1) == 1) (*shared)(many->error);
      };
      self.client->read(where[i].first, where[i].second, many->views[i]->data(),
                        many->views[i]->size(), std::move(ended));
    }
  }));
  for (auto& view : many->views) view->release();
  return many->lengths;
}

size_t write(NativeClient& self, PyHandle& file, uint64_t offset, nb::handle buffer) {
  View view(buffer, false);
  size_t done_bytes = 0;
  do {
    size_t length = std::min(view.size() - done_bytes, kWritePieceBytes);
    auto result = wait_for<Result<size_t>>([&](auto done) {
      self.client->write(file.handle, offset + done_bytes,
                         Buffer::copy_of(view.data() + done_bytes, length),
                         client::WriteAt::kAsOpened, std::move(done));
    });
    if (!result.ok()) {
      view.release();
      raise(result.status());
    }
    done_bytes += *result;
  } while (done_bytes < view.size());
  view.release();
  return done_bytes;
}

template <typename Start>
void wait_status(Start start) {
  check(wait_for<Status>(std::move(start)));
}

nb::dict statistics(const NativeClient& self) {
  auto s = self.client->statistics();
  nb::dict all;
  all["meta_calls"] = s.meta_calls;
  all["meta_retries"] = s.meta_retries;
  all["reads"] = s.reads;
  all["read_bytes"] = s.read_bytes;
  all["writes"] = s.writes;
  all["write_bytes"] = s.write_bytes;
  all["data_retries"] = s.data_retries;
  all["routing_refreshes"] = s.routing_refreshes;
  all["dirty_bytes"] = s.dirty_bytes;
  all["inflight"] = s.inflight;
  return all;
}

nb::object local_size(NativeClient& self, uint64_t inode, uint64_t version) {
  uint64_t size = 0;
  int64_t mtime_ns = 0;
  if (!self.client->local_size(inode, version, &size, &mtime_ns)) return nb::none();
  return nb::make_tuple(size, mtime_ns);
}

using Class = nb::class_<NativeClient>;

void bind_blocking(Class& cls) {
  cls.def(
      "meta_call", &meta_call, "method"_a, "caller"_a, "umask"_a, "body"_a,
      "One metadata operation: fs3.meta.Method, a serialized Caller, and the request without its "
      "header. Returns the serialized reply. Raises Fs3Error.");
  cls.def("open_handle", &open_handle, "open_reply"_a, "flags"_a, nb::rv_policy::take_ownership,
          "The handle for a serialized OpenReply; flags are open(2)'s.");
  cls.def(
      "readinto", &readinto, "handle"_a, "offset"_a, "buffer"_a,
      "Reads into a writable contiguous buffer; returns the bytes read, fewer at the end of file. "
      "The buffer stays exported until the read has ended, also after KeyboardInterrupt.");
  cls.def("read", &read, "handle"_a, "offset"_a, "length"_a,
          "As readinto, into new bytes; at most `length`, fewer at the end of file.");
  cls.def(
      "readinto_many", &readinto_many, "reads"_a,
      "[(handle, offset, buffer)] all at once; returns the bytes read of each, raises the first "
      "error when all have ended.");
  cls.def("write", &write, "handle"_a, "offset"_a, "buffer"_a,
          "Writes all of a contiguous buffer, which is copied; returns its length.");
  cls.def(
      "flush",
      [](NativeClient& self, PyHandle& file) {
        wait_status([&](auto done) { self.client->flush(file.handle, std::move(done)); });
      },
      "handle"_a, "Sends what is buffered and waits; raises a write-back error, once.");
  cls.def(
      "fsync",
      [](NativeClient& self, PyHandle& file, bool durable) {
        wait_status([&](auto done) { self.client->fsync(file.handle, durable, std::move(done)); });
      },
      "handle"_a, "durable"_a = true, "flush, then settles length and times.");
  cls.def(
      "settle",
      [](NativeClient& self, uint64_t inode) {
        wait_status([&](auto done) { self.client->settle(inode, std::move(done)); });
      },
      "inode"_a,
      "Before a change that earlier writes must not follow: sends what is buffered for the inode "
      "and tells the service. Write-back errors stay with the handles.");
  cls.def(
      "close",
      [](NativeClient& self, PyHandle& file) {
        if (std::exchange(file.closed, true)) return;
        wait_status([&](auto done) { self.client->close(file.handle, std::move(done)); });
      },
      "handle"_a, "flush, settle, end the session. The handle is dead afterwards; idempotent.");
}

client::SeekFor seek_for(bool data) {
  return data ? client::SeekFor::kData : client::SeekFor::kHole;
}

void bind_space(Class& cls) {
  cls.def(
      "seek",
      [](NativeClient& self, PyHandle& file, uint64_t offset, bool data) {
        return take(wait_for<Result<uint64_t>>([&](auto done) {
          self.client->seek(file.handle, offset, seek_for(data), std::move(done));
        }));
      },
      "handle"_a, "offset"_a, "data"_a, "SEEK_DATA when `data`, else SEEK_HOLE.");
  cls.def(
      "fallocate",
      [](NativeClient& self, PyHandle& file, uint32_t mode, uint64_t offset, uint64_t length) {
        wait_status([&](auto done) {
          self.client->fallocate(file.handle, mode, offset, length, std::move(done));
        });
      },
      "handle"_a, "mode"_a, "offset"_a, "length"_a, "As fallocate(2); `mode` has its flags.");
  cls.def(
      "copy_range",
      [](NativeClient& self, PyHandle& from, uint64_t from_offset, PyHandle& to, uint64_t to_offset,
         uint64_t length) {
        return take(wait_for<Result<uint64_t>>([&](auto done) {
          self.client->copy_range(from.handle, from_offset, to.handle, to_offset, length,
                                  std::move(done));
        }));
      },
      "source"_a, "source_offset"_a, "target"_a, "target_offset"_a, "length"_a,
      "As copy_file_range(2): bytes copied, fewer than asked now and then.");
  cls.def(
      "sync_all",
      [](NativeClient& self) {
        wait_status([&](auto done) { self.client->sync_all(std::move(done)); });
      },
      "fsync of everything that is open.");
  cls.def(
      "submit_seek",
      [](NativeClient& self, Queue queue, uint64_t token, PyHandle& file, uint64_t offset,
         bool data) {
        self.client->seek(file.handle, offset, seek_for(data),
                          complete_number<uint64_t>(std::move(queue), token));
      },
      "queue"_a, "token"_a, "handle"_a, "offset"_a, "data"_a);
  cls.def(
      "submit_fallocate",
      [](NativeClient& self, Queue queue, uint64_t token, PyHandle& file, uint32_t mode,
         uint64_t offset, uint64_t length) {
        self.client->fallocate(file.handle, mode, offset, length,
                               complete_status(std::move(queue), token));
      },
      "queue"_a, "token"_a, "handle"_a, "mode"_a, "offset"_a, "length"_a);
  cls.def(
      "submit_copy_range",
      [](NativeClient& self, Queue queue, uint64_t token, PyHandle& from, uint64_t from_offset,
         PyHandle& to, uint64_t to_offset, uint64_t length) {
        self.client->copy_range(from.handle, from_offset, to.handle, to_offset, length,
                                complete_number<uint64_t>(std::move(queue), token));
      },
      "queue"_a, "token"_a, "source"_a, "source_offset"_a, "target"_a, "target_offset"_a,
      "length"_a);
  cls.def(
      "submit_sync_all",
      [](NativeClient& self, Queue queue, uint64_t token) {
        self.client->sync_all(complete_status(std::move(queue), token));
      },
      "queue"_a, "token"_a);
}

void bind_submit(Class& cls) {
  cls.def(
      "submit_meta_call",
      [](NativeClient& self, Queue queue, uint64_t token, uint16_t method, nb::bytes caller,
         uint32_t umask, nb::bytes body) {
        auto done = [queue = std::move(queue), token](Result<std::string> reply) {
          Completion completion{.token = token, .status = reply.status()};
          completion.kind = Completion::Kind::kBytes;
          if (reply.ok()) completion.bytes = std::move(*reply);
          queue->push(std::move(completion));
        };
        self.client->meta_call(method, as_string(caller), umask, as_string(body), std::move(done));
      },
      "queue"_a, "token"_a, "method"_a, "caller"_a, "umask"_a, "body"_a);
  cls.def(
      "submit_read",
      [](NativeClient& self, Queue queue, uint64_t token, PyHandle& file, uint64_t offset,
         nb::handle buffer) {
        auto view = std::make_shared<View>(buffer, true);
        std::byte* into = view->data();
        size_t length = view->size();
        auto done = complete_number<size_t>(std::move(queue), token, std::move(view));
        nb::gil_scoped_release release;
        self.client->read(file.handle, offset, into, length, std::move(done));
      },
      "queue"_a, "token"_a, "handle"_a, "offset"_a, "buffer"_a,
      "The buffer stays exported until the completion is drained.");
  cls.def(
      "submit_write",
      [](NativeClient& self, Queue queue, uint64_t token, PyHandle& file, uint64_t offset,
         nb::handle buffer) {
        View view(buffer, false);
        {
          nb::gil_scoped_release release;
          self.client->write(file.handle, offset, Buffer::copy_of(view.data(), view.size()),
                             client::WriteAt::kAsOpened,
                             complete_number<size_t>(std::move(queue), token));
        }
        view.release();
      },
      "queue"_a, "token"_a, "handle"_a, "offset"_a, "buffer"_a, "The bytes are copied.");
  cls.def(
      "submit_flush",
      [](NativeClient& self, Queue queue, uint64_t token, PyHandle& file) {
        self.client->flush(file.handle, complete_status(std::move(queue), token));
      },
      "queue"_a, "token"_a, "handle"_a);
  cls.def(
      "submit_fsync",
      [](NativeClient& self, Queue queue, uint64_t token, PyHandle& file, bool durable) {
        self.client->fsync(file.handle, durable, complete_status(std::move(queue), token));
      },
      "queue"_a, "token"_a, "handle"_a, "durable"_a = true);
  cls.def(
      "submit_settle",
      [](NativeClient& self, Queue queue, uint64_t token, uint64_t inode) {
        self.client->settle(inode, complete_status(std::move(queue), token));
      },
      "queue"_a, "token"_a, "inode"_a);
  cls.def(
      "submit_close",
      [](NativeClient& self, Queue queue, uint64_t token, PyHandle& file) {
        if (std::exchange(file.closed, true))
          return complete_status(std::move(queue), token)(Status());
        self.client->close(file.handle, complete_status(std::move(queue), token));
      },
      "queue"_a, "token"_a, "handle"_a);
}

void bind_chunks(Class& cls) {
  cls.def(
      "truncate_chunks",
      [](NativeClient& self, uint64_t inode, nb::bytes layout, uint64_t old_size,
         uint64_t new_size) {
        wait_status([&, layout = as_string(layout)](auto done) {
          self.client->truncate_chunks(inode, layout, old_size, new_size, std::move(done));
        });
      },
      "inode"_a, "layout"_a, "old_size"_a, "new_size"_a,
      "Servers only. Cuts and removes chunks beyond new_size; layout is a serialized Layout.");
  cls.def(
      "remove_chunks",
      [](NativeClient& self, uint64_t inode, nb::bytes layout, uint64_t size) {
        wait_status([&, layout = as_string(layout)](auto done) {
          self.client->remove_chunks(inode, layout, size, std::move(done));
        });
      },
      "inode"_a, "layout"_a, "size"_a, "Servers only. Removes every chunk that storage holds.");
  cls.def(
      "measure",
      [](NativeClient& self, uint64_t inode, nb::bytes layout) {
        auto measure =
            take(wait_for<Result<Client::Measure>>([&, layout = as_string(layout)](auto done) {
              self.client->measure(inode, layout, std::move(done));
            }));
        return std::make_tuple(measure.length, measure.stored);
      },
      "inode"_a, "layout"_a,
      "Servers only. (The end of the last byte that storage holds, how many bytes it holds.)");
  cls.def(
      "submit_truncate_chunks",
      [](NativeClient& self, Queue queue, uint64_t token, uint64_t inode, nb::bytes layout,
         uint64_t old_size, uint64_t new_size) {
        self.client->truncate_chunks(inode, as_string(layout), old_size, new_size,
                                     complete_status(std::move(queue), token));
      },
      "queue"_a, "token"_a, "inode"_a, "layout"_a, "old_size"_a, "new_size"_a);
  cls.def(
      "submit_remove_chunks",
      [](NativeClient& self, Queue queue, uint64_t token, uint64_t inode, nb::bytes layout,
         uint64_t size) {
        self.client->remove_chunks(inode, as_string(layout), size,
                                   complete_status(std::move(queue), token));
      },
      "queue"_a, "token"_a, "inode"_a, "layout"_a, "size"_a);
}

void bind_client(nb::module_& m) {
  nb::class_<CompletionQueue>(m, "CompletionQueue",
                              "Outcomes of submit_* calls. Readable through its eventfd while "
                              "something is there. Thread safe.")
      .def(nb::new_([] { return std::make_shared<CompletionQueue>(); }))
      .def("fileno", &CompletionQueue::fd)
      .def("wait", &CompletionQueue::wait, "timeout_s"_a,
           "Waits without the GIL; negative: for ever. True when something is there.")
      .def("drain", &CompletionQueue::drain,
           "[(token, value, error)]: value bytes, int or None; error None or (code, where, "
           "detail).");
  nb::class_<PyHandle>(m, "FileHandle", "One open file of a NativeClient. Keeps its client alive.")
      .def_prop_ro("inode",
                   [](const PyHandle& file) { return file.client->handle_inode(file.handle); });
  Class cls(
      m, "NativeClient",
      "Metadata calls, file reads and writes, and, for servers, whole-chunk work. Owns one "
      "thread. Thread safe. After fork() every call of an inherited client raises ESHUTDOWN.");
  cls.def(nb::new_(&make_client), "meta_addresses"_a, "client_id"_a, "cluster_id"_a = nb::bytes(""),
          "capability_key"_a = nb::bytes(""), "meta_deadline_s"_a = 30.0,
          "data_deadline_s"_a = 60.0, "write_back_bytes"_a = size_t{4} << 20,
          "max_inflight_bytes"_a = size_t{64} << 20);
  bind_blocking(cls);
  bind_submit(cls);
  bind_space(cls);
  bind_chunks(cls);
  cls.def(
      "note_truncated",
      [](NativeClient& self, uint64_t inode, uint64_t size, uint64_t version) {
        self.client->note_truncated(inode, size, version);
      },
      "inode"_a, "size"_a, "version"_a,
      "After SETATTR of the size (version: the inode's): forget what is buffered beyond.");
  cls.def(
      "local_size", &local_size, "inode"_a, "version"_a,
      "(size, mtime_ns) when this client knows better than attributes of that version: unsettled "
      "writes, or a later answer; else None.");
  cls.def(
      "set_server_lease",
      [](NativeClient& self, int64_t until_boottime_ns) {
        self.client->set_server_lease(until_boottime_ns);
      },
      "until_boottime_ns"_a,
      "Whole-chunk updates are sent until then and no later; never called: without end.");
  cls.def(
      "update_routing",
      [](NativeClient& self, nb::bytes routing) {
        self.client->update_routing({routing.c_str(), routing.size()});
      },
      "routing"_a, "A newer serialized RoutingInfo; older ones are ignored.");
  cls.def("routing", [](const NativeClient& self) { return as_bytes(self.client->routing()); });
  cls.def("statistics", &statistics);
  cls.def(
      "shutdown",
      [](NativeClient& self) {
        {
          nb::gil_scoped_release release;
          self.client->shutdown();
        }
        parked().release();
      },
      "Ends open calls with ESHUTDOWN and joins the thread. Idempotent.");
}

Register registration(bind_client);

}  // namespace
}  // namespace fs3::python
