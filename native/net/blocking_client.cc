#include "net/blocking_client.h"

#include <future>

namespace fs3::net {

Result<std::unique_ptr<BlockingClient>> BlockingClient::create(const std::string& address,
                                                               Identity self) {
  std::unique_ptr<BlockingClient> client(new BlockingClient);
  auto thread = ReactorThread::create("fs3-rpc-client");
  if (!thread.ok()) return thread.status();
  client->thread_ = std::move(*thread);
  auto channel = Channel::create(client->thread_->reactor(), address, std::move(self));
  if (!channel.ok()) return channel.status();
  client->channel_ = std::move(*channel);
  return client;
}

BlockingClient::~BlockingClient() {
  channel_.reset();  // before its reactor
}

Reply BlockingClient::call(Request request) {
  CallSpec spec;
  spec.method = request.method;
  spec.body = std::move(request.body);
  spec.capability = std::move(request.capability);
  if (!request.source.empty()) {
    auto* base = const_cast<std::byte*>(request.source.data());  // a source is only read
    spec.source = {
        {Channel::register_memory(base, request.source.size()), 0, request.source.size()}};
  }
  if (!request.sink.empty()) {
    spec.sink = {{Channel::register_memory(request.sink.data(), request.sink.size()), 0,
                  request.sink.size()}};
  }
  if (request.timeout_ns != 0) spec.deadline_ns = now_ns() + request.timeout_ns;
  std::promise<Reply> done;
  channel_->call(std::move(spec), [&done](Reply reply) { done.set_value(std::move(reply)); });
  return done.get_future().get();
}

}  // namespace fs3::net
