// Engine: one disk, opened by itself, with blocking calls: for tests, checkers and repair tools. A
// disk has one owner, so the storage server must not be running on it.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <future>
#include <memory>
#include <optional>
#include <utility>

#include "base/crc32c.h"
#include "engine/engine.h"
#include "python/errors.h"
#include "python/module.h"

namespace fs3::python {
namespace {

using nb::literals::operator""_a;
using Id = std::pair<uint64_t, uint64_t>;

ChunkId chunk_of(Id id) { return {id.first, id.second}; }

class BlockingEngine {
 public:
  static Result<std::unique_ptr<BlockingEngine>> open(engine::Options options) {
    auto thread = ReactorThread::create("engine");
    if (!thread.ok()) return thread.status();
    std::unique_ptr<BlockingEngine> result(new BlockingEngine);
    result->thread_ = std::move(*thread);
    Status status = result->on([&] {
      auto opened = engine::Engine::open(result->thread_->reactor(), std::move(options));
      if (opened.ok()) result->engine_ = std::move(*opened);
      return opened.status();
    });
    if (!status.ok()) return status;
    return result;
  }

  ~BlockingEngine() { close(); }

  void close() {
    on([this] {
      engine_.reset();
      return true;
    });
  }

  engine::Engine& engine() { return *engine_; }
  bool is_open() const { return engine_ != nullptr; }

  // Runs on the reactor's thread and waits.
  template <typename F>
  auto on(F function) -> decltype(function()) {
    std::promise<decltype(function())> promise;
    auto future = promise.get_future();
    thread_->reactor().post([&] { promise.set_value(function()); });
    return future.get();
  }

  // The same for calls that answer later.
  template <typename T, typename F>
  T wait(F start) {
    std::promise<T> promise;
    auto future = promise.get_future();
    thread_->reactor().post([&] {
      start(Function<void(T)>([&promise](T value) { promise.set_value(std::move(value)); }));
    });
    return future.get();
  }

 private:
  BlockingEngine() = default;
  std::unique_ptr<ReactorThread> thread_;
  std::unique_ptr<engine::Engine> engine_;
};

void require_open(const BlockingEngine& self) {
  if (!self.is_open()) throw nb::value_error("the engine is closed");
}

nb::dict version_dict(const engine::VersionInfo& info) {
  nb::dict version;
  version["version"] = info.version;
  version["chain_version"] = info.chain_version;
  version["length_bytes"] = info.length;
  version["checksum"] = info.checksum;
  return version;
}

nb::dict chunk_dict(const engine::ChunkState& state) {
  nb::dict chunk;
  chunk["chunk"] = nb::make_tuple(state.chunk.inode, state.chunk.index);
  chunk["committed"] =
      state.committed.version == 0 ? nb::object(nb::none()) : version_dict(state.committed);
  chunk["pending"] = state.pending ? nb::object(version_dict(*state.pending)) : nb::none();
  return chunk;
}

std::unique_ptr<BlockingEngine> open_engine(const std::string& directory, nb::bytes cluster_id,
                                            uint32_t node_id, bool create,
                                            uint64_t capacity_bytes) {
  engine::Options options{directory, std::string(cluster_id.c_str(), cluster_id.size()), node_id,
                          create, capacity_bytes};
  auto opened = [&] {
    nb::gil_scoped_release release;
    return BlockingEngine::open(std::move(options));
  }();
  return take(std::move(opened));
}

nb::list list_chunks(BlockingEngine& self, TargetId target, std::optional<Id> after, size_t limit) {
  require_open(self);
  std::optional<ChunkId> begin;
  if (after) begin = chunk_of(*after);
  std::vector<engine::ChunkState> states;
  {
    nb::gil_scoped_release release;
    states = self.on([&] { return self.engine().list(target, begin, limit); });
  }
  nb::list chunks;
  for (const auto& state : states) chunks.append(chunk_dict(state));
  return chunks;
}

nb::bytes read_chunk(BlockingEngine& self, TargetId target, Id chunk, uint32_t offset,
                     uint32_t length, bool pending) {
  require_open(self);
  auto result = [&] {
    nb::gil_scoped_release release;
    return self.wait<Result<engine::ReadResult>>([&](auto done) {
      self.engine().read(target, chunk_of(chunk), offset, length, pending, std::move(done));
    });
  }();
  check(result.status());
  return nb::bytes(result->data.data(), result->data.size());
}

void write_chunk(BlockingEngine& self, TargetId target, Id chunk, uint64_t version, uint32_t offset,
                 nb::bytes data) {
  require_open(self);
  engine::StageRequest request;
  request.target = target;
  request.chunk = chunk_of(chunk);
  request.version = version;
  request.offset = offset;
  request.length = static_cast<uint32_t>(data.size());
  request.data = Buffer::copy_of(data.c_str(), data.size());
  request.checksum = crc32c(0, data.c_str(), data.size());
  request.commit = true;
  auto result = [&] {
    nb::gil_scoped_release release;
    return self.wait<Result<engine::StageResult>>(
        [&](auto done) { self.engine().stage(std::move(request), std::move(done)); });
  }();
  check(result.status());
}

template <typename F>
void call_status(BlockingEngine& self, F function) {
  require_open(self);
  Status status;
  {
    nb::gil_scoped_release release;
    status = self.on(std::move(function));
  }
  check(status);
}

nb::list list_targets(BlockingEngine& self) {
  require_open(self);
  nb::list targets;
  for (const auto& target : self.on([&] { return self.engine().targets(); })) {
    targets.append(nb::make_tuple(target.target, target.chain_id));
  }
  return targets;
}

nb::dict space(BlockingEngine& self) {
  require_open(self);
  auto space = self.on([&] { return self.engine().space(); });
  nb::dict result;
  result["capacity_bytes"] = space.capacity_bytes;
  result["free_bytes"] = space.free_bytes;
  result["used_bytes"] = space.used_bytes;
  result["chunks"] = space.chunks;
  return result;
}

void bind_engine(nb::module_& m) {
  nb::class_<BlockingEngine>(m, "Engine",
                             "The chunk engine of one disk with blocking calls, and the thread it "
                             "runs on. Owns both; close() or the destructor frees the disk for "
                             "another owner. Errors are those of fs3.errors.")
      .def_static("open", &open_engine, "directory"_a, "cluster_id"_a, "node_id"_a,
                  "create"_a = false, "capacity_bytes"_a = 0,
                  "Opens, or makes, the disk in `directory`. `cluster_id`: 16 bytes.")
      .def("close", &BlockingEngine::close, nb::call_guard<nb::gil_scoped_release>(),
           "Idempotent; other calls raise ValueError afterwards.")
      .def(
          "create_target",
          [](BlockingEngine& self, TargetId target, uint32_t chain_id) {
            call_status(self, [&] { return self.engine().create_target(target, chain_id); });
          },
          "target"_a, "chain_id"_a)
      .def("targets", &list_targets, "List of (target id, chain id).")
      .def("list", &list_chunks, "target"_a, "after"_a = nb::none(), "limit"_a = 1000,
           "Chunks ordered by (inode, index), strictly after `after`: dicts with chunk, committed "
           "and pending (a dict of version, chain_version, length_bytes, checksum; or None).")
      .def("read", &read_chunk, "target"_a, "chunk"_a, "offset"_a = 0, "length"_a = 64 << 20,
           "pending"_a = false,
           "Verified bytes of the committed (or pending) version, short at its end.")
      .def("write", &write_chunk, "target"_a, "chunk"_a, "version"_a, "offset"_a, "data"_a,
           "Stages and commits one version, durably.")
      .def("space", &space)
      .def(
          "audit",
          [](BlockingEngine& self) { call_status(self, [&] { return self.engine().audit(); }); },
          "Raises when memory, allocator and stored metadata disagree.");
}

Register registration(bind_engine);

}  // namespace
}  // namespace fs3::python
