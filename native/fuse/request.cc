#include "fuse/request.h"

#include <cerrno>

namespace fs3::fuse {

void DropRequest::operator()(Request* request) const { request->finish(EIO, nullptr, 0); }

void reply_error(RequestPtr request, int error) { request.release()->finish(error, nullptr, 0); }

void reply_bytes(RequestPtr request, const void* data, size_t length) {
  request.release()->finish(0, data, length);
}

void reply_filled(RequestPtr request, const std::byte* space, size_t length) {
  request.release()->finish(0, space, length);
}

void reply_nothing(RequestPtr request) { request.release()->finish_without_reply(); }

}  // namespace fs3::fuse
