// ClassicReader: one /dev/fuse descriptor on one reactor.
//
// Thread safety: start(), stop() and events on the reactor; replies from any thread. Each request
// keeps the device alive until it is answered.
#pragma once

#include <memory>

#include "base/buffer.h"
#include "base/reactor.h"
#include "base/status.h"
#include "fuse/device.h"
#include "fuse/statistics.h"

namespace fs3::fuse {

class Session;

class ClassicReader : public Reactor::FdHandler {
 public:
  ClassicReader(Session& session, Reactor& reactor, std::shared_ptr<Device> device);
  // REQUIRES: on the reactor.
  Status start();
  void stop();
  void on_events(uint32_t events) override;

 private:
  // False: nothing to read for now, or the connection ended.
  bool read_one();
  void accept(size_t length);

  Session& session_;
  Reactor& reactor_;
  std::shared_ptr<Device> device_;
  bool started_ = false;
  Buffer buffer_;  // the next request is read into it; a WRITE takes it along
};

}  // namespace fs3::fuse
