// fs3._native.RpcServer (net/queued_server.h) and RpcClient (net/blocking_client.h).
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include "net/blocking_client.h"
#include "net/queued_server.h"
#include "python/errors.h"
#include "python/module.h"
#include "wire/frame.h"

namespace fs3::python {
namespace {

using net::BlockingClient;
using net::QueuedServer;

std::string to_string(nb::bytes bytes) { return {bytes.c_str(), bytes.size()}; }
nb::bytes to_bytes(std::string_view text) { return nb::bytes(text.data(), text.size()); }
int64_t to_ns(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

net::Identity to_identity(nb::bytes cluster_id, nb::bytes instance_id, int role, uint32_t node_id) {
  return {to_string(cluster_id), to_string(instance_id), static_cast<net::Role>(role), node_id};
}

nb::object to_python(const net::Principal& principal, const nb::object& type) {
  nb::object uid = principal.uid == UINT32_MAX ? nb::none() : nb::cast(principal.uid);
  return type(static_cast<int>(principal.role), principal.authenticated, uid, principal.node_id,
              to_bytes(principal.instance_id), nb::str(principal.address.c_str()));
}

std::unique_ptr<QueuedServer> make_server(const std::string& name, nb::bytes cluster_id,
                                          nb::bytes instance_id, int role, uint32_t node_id,
                                          size_t queue_max) {
  net::Identity self = to_identity(cluster_id, instance_id, role, node_id);
  return take(QueuedServer::create(name, std::move(self), queue_max));
}

std::string listen(QueuedServer& server, const std::string& address) {
  auto bound = [&] {
    nb::gil_scoped_release release;
    return server.listen(address);
  }();
  return take(std::move(bound));
}

nb::list next_batch(QueuedServer& server, size_t max, double timeout_s) {
  auto taken = [&] {
    nb::gil_scoped_release release;
    return server.take(max, to_ns(timeout_s));
  }();
  nb::object type = nb::module_::import_("fs3.auth.identity").attr("Principal");
  nb::list batch;
  for (const auto& [handle, call] : taken) {
    batch.append(nb::make_tuple(handle, call->method(), to_python(call->principal(), type),
                                to_bytes(call->capability()), to_bytes(call->body())));
  }
  return batch;
}

void reply_batch(QueuedServer& server, nb::list replies) {
  std::vector<QueuedServer::Answer> answers;
  answers.reserve(replies.size());
  for (nb::handle item : replies) {
    auto reply = nb::cast<nb::tuple>(item);
    QueuedServer::Answer answer{nb::cast<uint64_t>(reply[0]), Status(), {}};
    auto code = nb::cast<uint32_t>(reply[1]);
    if (code == kOk) {
      answer.body = to_string(nb::cast<nb::bytes>(reply[4]));
    } else {
      answer.status =
          Status(code, nb::cast<std::string>(reply[2]), nb::cast<std::string>(reply[3]));
    }
    answers.push_back(std::move(answer));
  }
  Status status = [&] {
    nb::gil_scoped_release release;
    return server.answer(std::move(answers));
  }();
  check(status);
}

nb::dict statistics(const QueuedServer& server) {
  auto s = server.statistics();
  nb::dict out;
  out["connections"] = s.rpc.connections;
  out["open_connections"] = s.rpc.open_connections;
  out["requests"] = s.rpc.requests;
  out["requests_in_flight"] = s.rpc.requests_in_flight;
  out["bad_frames"] = s.rpc.bad_frames;
  out["bytes_in"] = s.rpc.bytes_in;
  out["bytes_out"] = s.rpc.bytes_out;
  out["busy"] = s.busy;
  out["expired"] = s.expired;
  out["waiting"] = s.waiting;
  out["handed_out"] = s.handed_out;
  return out;
}

std::unique_ptr<BlockingClient> make_client(const std::string& address, nb::bytes instance_id,
                                            nb::bytes cluster_id, int role, uint32_t node_id) {
  net::Identity self = to_identity(cluster_id, instance_id, role, node_id);
  auto client = [&] {
    nb::gil_scoped_release release;  // a name may have to be resolved
    return BlockingClient::create(address, std::move(self));
  }();
  return take(std::move(client));
}

// A bytes object of `size` whose content is still to come; only we hold it.
nb::object new_bytes(size_t size) {
  return nb::steal(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
}

nb::object shortened(nb::object bytes, size_t size) {
  PyObject* raw = bytes.release().ptr();
  if (_PyBytes_Resize(&raw, static_cast<Py_ssize_t>(size)) != 0) throw nb::python_error();
  return nb::steal(raw);
}

nb::tuple call(BlockingClient& client, uint16_t method, nb::bytes body, nb::bytes capability,
               nb::bytes payload, uint32_t sink_len, double timeout_s) {
  if (sink_len > wire::kMaxPayload) {
    raise(Status(kBadRequest, "native/rpc", "sink_len: exceeds 4 MiB + 64 KiB"));
  }
  nb::object sink = new_bytes(sink_len);
  if (!sink.is_valid()) throw nb::python_error();
  BlockingClient::Request request;
  request.method = method;
  request.body = to_string(body);
  request.capability = to_string(capability);
  request.source = {reinterpret_cast<const std::byte*>(payload.c_str()), payload.size()};
  request.sink = {reinterpret_cast<std::byte*>(PyBytes_AS_STRING(sink.ptr())), sink_len};
  request.timeout_ns = to_ns(timeout_s);
  net::Reply reply = [&] {
    nb::gil_scoped_release release;
    return client.call(std::move(request));
  }();
  const Status& status = reply.status;
  return nb::make_tuple(status.code(), nb::str(status.where().data(), status.where().size()),
                        nb::str(status.detail().data(), status.detail().size()),
                        to_bytes(reply.body), shortened(std::move(sink), reply.sink_length));
}

void bind_server(nb::module_& m) {
  using namespace nb::literals;
  nb::class_<QueuedServer>(m, "RpcServer",
                           "Native RPC server whose requests are taken and answered in batches. "
                           "Thread-safe. Owns its thread; stop() or garbage collection ends it.")
      .def(nb::new_(&make_server), nb::kw_only(), "name"_a, "cluster_id"_a, "instance_id"_a,
           "role"_a, "node_id"_a = 0, "queue_max"_a = 4096)
      .def("listen", &listen, "address"_a,
           "'tcp://host:port' (port 0: any) or 'unix:///path'; returns the real address.")
      .def("next_batch", &next_batch, "max"_a, "timeout_s"_a,
           "Waits without the GIL; list of (handle, method, Principal, capability, body), empty "
           "after the time-out or stop(). Each handle must be answered once.")
      .def("reply_batch", &reply_batch, "replies"_a,
           "list of (handle, status, where, detail, body); body counts when status is 0.")
      .def("statistics", &statistics)
      .def("stop", &QueuedServer::stop, nb::call_guard<nb::gil_scoped_release>(),
           "Closes all connections; what was not answered is answered SHUTTING_DOWN.");
}

void bind_client(nb::module_& m) {
  using namespace nb::literals;
  nb::class_<BlockingClient>(m, "RpcClient",
                             "One connection (made when needed) with a blocking call. Thread-safe.")
      .def(nb::new_(&make_client), "address"_a, nb::kw_only(), "instance_id"_a,
           "cluster_id"_a = nb::bytes("", 0), "role"_a = 1, "node_id"_a = 0)
      .def("call", &call, "method"_a, "body"_a, "capability"_a = nb::bytes("", 0),
           "payload"_a = nb::bytes("", 0), "sink_len"_a = 0, "timeout_s"_a = 10.0,
           "Waits without the GIL; (status, where, detail, body, payload).")
      .def("healthy", &BlockingClient::healthy);
}

void bind_rpc(nb::module_& m) {
  bind_server(m);
  bind_client(m);
}

const Register r(bind_rpc);

}  // namespace
}  // namespace fs3::python
